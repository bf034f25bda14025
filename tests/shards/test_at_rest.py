"""Sharded checkpoints as they lie on disk: found, listed, verified, set aside, copied, signed, removed."""

from __future__ import annotations

import os
import pathlib
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

import holdfast
from holdfast import DamagedCheckpointError, LoadError, NewerFormatError, SignatureError, scanning
from holdfast.cli.main import main
from holdfast.format import directory
from holdfast.records import Facts, Manifest, Record
from holdfast.storage import open_store
from tests.shards.folders import SHARD, bytes_of, folder
from tests.support.files import save
from tests.support.shards import damage, save_plain, save_sharded, state


def test_plain_dcp_reads_it(made):
    """What the tests lay down is what plain ``dcp.load`` reads, so that they are about the real thing."""
    expected = state()
    found = {key: torch.zeros_like(value) for key, value in expected.items() if isinstance(value, torch.Tensor)}
    dcp.load(found, checkpoint_id=made, no_dist=True)
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_it_is_found_with_its_facts_and_its_size(made):
    """A scan finds the directory as one checkpoint of all its bytes, and none of its files."""
    save(os.path.join(folder(made), "b.ckpt"), sequence=2)
    os.makedirs(os.path.join(folder(made), "torn.ckpt"))
    store = open_store(folder(made))
    first, second = scanning.scan(store)
    assert (first.name, first.sharded, second.name, second.sharded) == ("a.ckpt", True, "b.ckpt", False)
    assert first.size == sum(map(len, bytes_of(made).values())) == store.size("a.ckpt")
    assert first.facts.ranks == 2
    assert (first.facts.step, first.facts.metrics, first.role) == (5, {"val_loss": 0.5}, "ranked")
    assert scanning.survey(store, depth=9).found == [first, second]
    assert scanning.look(store, "a.ckpt").facts == first.facts


def test_what_is_not_committed_is_invisible(tmp_path):
    """A draft, and shards without metadata and manifest, are in no listing and no error."""
    store = open_store(tmp_path)
    draft = store.draft("x.ckpt")
    draft.add(directory.MANIFEST_FILE, directory.encode(Manifest(Facts(), (), ())))
    store.put("torn.ckpt/__0_0.distcp", [b"half"])
    assert scanning.scan(store) == []
    assert scanning.survey(store, depth=9).found == []
    draft.drop()


def test_a_plain_directory_is_listed_without_facts(tmp_path):
    """What plain DCP has saved is one checkpoint without facts or problem, and none of its files is one."""
    save_plain(tmp_path / "step-5")
    save_plain(tmp_path / "deep" / "x.ckpt")
    found = scanning.survey(open_store(tmp_path), depth=9).found
    assert [(item.name, item.facts, item.problem, item.sharded) for item in found] == [
        ("deep/x.ckpt", None, "", True),
        ("step-5", None, "", True),
    ]
    assert found[1].size == sum(map(len, bytes_of(tmp_path / "step-5").values()))


@pytest.mark.parametrize("how", ["flipped", "cut off", "empty", "facts flipped"])
def test_a_damaged_manifest_is_a_problem(made, how):
    """A directory whose manifest cannot be read is listed as damaged, with why."""
    path = os.path.join(made, directory.MANIFEST_FILE)
    data = pathlib.Path(path).read_bytes()
    changed = {
        "flipped": data.replace(b"distcp", b"distcq", 1),
        "facts flipped": data.replace(b"val_loss", b"val_lost", 1),
        "cut off": data[:50],
        "empty": b"",
    }[how]
    pathlib.Path(path).write_bytes(changed)
    (item,) = scanning.scan(open_store(folder(made)))
    assert (item.facts, item.damaged, item.sharded) == (None, True, True)
    assert item.problem.startswith("holdfast.manifest: ")
    with pytest.raises(DamagedCheckpointError, match=r"a\.ckpt is damaged: holdfast\.manifest: "):
        holdfast.verify(made)


def test_a_manifest_full_of_holes_takes_no_memory(made, capsys):
    """A manifest that claims a terabyte is damage for all who read it, and no obstacle for its neighbours."""
    shutil.copytree(made, os.path.join(folder(made), "b.ckpt"))
    os.truncate(os.path.join(made, directory.MANIFEST_FILE), 1 << 40)
    for use in (holdfast.verify, holdfast.load, lambda path: main(["show", path]) and holdfast.verify(path)):
        with pytest.raises(DamagedCheckpointError, match=f"it has {1 << 40} bytes, of which at most"):
            use(made)
    assert main(["verify", folder(made)]) == 1
    said = capsys.readouterr().out
    assert "b.ckpt" in said
    assert "1 whole, 1 damaged" in said


def test_a_manifest_of_the_future_is_no_damage(made):
    """A directory of a later format is refused as such, by the listing and by verify."""
    path = pathlib.Path(made, directory.MANIFEST_FILE)
    manifest = directory.decode(path.read_bytes())
    path.write_bytes(directory.encode(Manifest(manifest.facts, manifest.records, manifest.tensors, format=99)))
    (item,) = scanning.scan(open_store(folder(made)))
    assert (item.damaged, "newer" in item.problem) == (False, True)
    with pytest.raises(NewerFormatError):
        holdfast.verify(made)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "", "..", directory.MANIFEST_FILE])
def test_a_manifest_names_no_file_elsewhere(name):
    """A record that is not the plain name of another file in the directory is refused, written or read."""
    with pytest.raises(directory.ManifestError):
        directory.encode(Manifest(Facts(), (Record(name, 1, 1),), ()))
    good = directory.encode(Manifest(Facts(), (Record("a", 1, 1), Record("b", 1, 1)), ()))
    assert [record.name for record in directory.decode(good).records] == ["a", "b"]
    with pytest.raises(directory.ManifestError):
        directory.encode(Manifest(Facts(), (Record("a", 1, 1), Record("a", 1, 1)), ()))


def test_a_whole_one_is_whole(made):
    """Verify reads every byte and returns the manifest; progress adds up to all that the manifest tells of."""
    seen = []
    manifest = holdfast.verify(made, progress=seen.append)
    assert manifest.facts.ranks == 2
    assert {record.name for record in manifest.records} == {"__0_0.distcp", SHARD, ".metadata"}
    (result,) = holdfast.verify_all(folder(made))
    assert (result.whole, result.has_manifest, result.problem) == (True, True, "")
    assert sum(seen) > 0


def end_of(path):
    return os.path.getsize(os.path.join(path, SHARD))


def append(path):
    with open(os.path.join(path, SHARD), "ab") as file:
        file.write(b"x")


def instead(make):
    """Return what makes something else in the place of the shard."""

    def harm(path):
        os.unlink(os.path.join(path, SHARD))
        make(os.path.join(path, SHARD))

    return harm


DAMAGES = {
    "a tensor": (lambda path: damage(path, SHARD, 300), rf"{SHARD} \(state_dict\.weight from \[3, 0\]\): its CRC"),
    "a table": (lambda path: damage(path, SHARD, end_of(path) - 60), rf"{SHARD}: its table"),
    "a footer": (lambda path: damage(path, SHARD, end_of(path) - 2), rf"{SHARD}: its end"),
    "metadata": (lambda path: damage(path, ".metadata"), r"\.metadata: its CRC-32"),
    "a shard cut off": (lambda path: os.truncate(os.path.join(path, SHARD), 100), rf"{SHARD}: it has 100 bytes but"),
    "a shard extended": (append, rf"{SHARD}: it has .* bytes but"),
    "a shard missing": (lambda path: os.unlink(os.path.join(path, SHARD)), rf"{SHARD}: it is missing"),
    "metadata missing": (lambda path: os.unlink(os.path.join(path, ".metadata")), r"\.metadata: it is missing"),
    "a folder in its place": (instead(os.mkdir), rf"{SHARD}: a directory stands"),
    "a pipe in its place": (instead(os.mkfifo), rf"{SHARD}: what stands there is a pipe"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_found_and_named(made, how):
    """Whatever is not as it was saved is an error that names the file, and the tensor in it."""
    harm, what = DAMAGES[how]
    harm(made)
    with pytest.raises(DamagedCheckpointError, match=what):
        holdfast.verify(made)
    (result,) = holdfast.verify_all(folder(made))
    assert result.whole is False


def test_a_shard_of_another_save_is_found(tmp_path, made):
    """A whole shard with the same name and size, but of another save, is damage: the chain begins at the manifest."""
    other = save_sharded(tmp_path / "other.ckpt", state(seed=1))
    shutil.copy(os.path.join(other, SHARD), os.path.join(made, SHARD))
    with pytest.raises(DamagedCheckpointError, match="of another checkpoint"):
        holdfast.verify(made)


def test_every_single_byte_counts(made):
    """A flip of any byte of any file is found: no byte is left unchecked. A sample of them."""
    for file, data in bytes_of(made).items():
        path = pathlib.Path(made, file)
        for at in range(0, len(data), max(1, len(data) // 23)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            with pytest.raises(LoadError):
                holdfast.verify(made)
        path.write_bytes(data)
    assert holdfast.verify(made) is not None


def test_what_was_not_saved_with_it_is_told_and_harms_nothing(made, capsys):
    """A file that people put into the directory is no damage; verify names it."""
    pathlib.Path(made, "README").write_text("hello")
    (result,) = holdfast.verify_all(folder(made))
    assert (result.whole, "README" in result.problem) == (True, True)
    assert main(["verify", made]) == 0
    assert "not saved with it, and not checked: README" in capsys.readouterr().out


def test_a_plain_directory_cannot_be_verified(tmp_path):
    """Plain DCP keeps no checksums: verify says that it knows nothing rather than that all is well."""
    path = save_plain(tmp_path / "x.ckpt")
    assert holdfast.verify(path) is None
    (result,) = holdfast.verify_all(path)
    assert (result.whole, "no checksums" in result.problem) == (None, True)


def test_a_name_that_goes_to_another_meanwhile(made, monkeypatch):
    """While one is read another takes its name: the newer one is verified, and nobody speaks of damage."""
    from holdfast import directories

    real, waiting = directories._check_bytes, [True]

    def check(*arguments):
        if waiting:
            waiting.clear()
            save_sharded(made, state(seed=3), sequence=9)
        return real(*arguments)

    monkeypatch.setattr(directories, "_check_bytes", check)
    assert holdfast.verify(made).facts.sequence == 9


def test_newest_passes_over_a_damaged_one(made):
    """The newest whole one is found among files and directories; a damaged directory is warned of."""
    newer = save_sharded(os.path.join(folder(made), "b.ckpt"), sequence=2)
    assert holdfast.newest(folder(made)) == newer
    damage(newer, SHARD, 300)
    with pytest.warns(UserWarning, match=rf"b\.ckpt is damaged: {SHARD}"):
        assert holdfast.newest(folder(made)) == made


def test_a_damaged_one_is_set_aside_whole(made):
    """Set aside, a directory keeps all its files under the other name, is no checkpoint, and is listed as aside."""
    from holdfast.front.passing import PassingOver

    before = bytes_of(made)
    damage(made, SHARD, 300)
    store = open_store(folder(made))
    passing = PassingOver(store)
    (item,) = scanning.scan(store)
    with pytest.raises(DamagedCheckpointError) as caught:
        holdfast.verify(made)
    passing.note(item, caught.value)
    with pytest.warns(UserWarning, match="It is set aside as"):
        passing.settle("aaaa")
    assert sorted(bytes_of(made + ".damaged")) == sorted(before)
    assert scanning.survey(store).aside == ["a.ckpt.damaged"]
    assert scanning.scan(store) == []


def test_it_can_be_signed(made, tmp_path):
    """A signature covers every byte of every file, by SHA-256; any change, also one that fools CRC-32, breaks it."""
    pytest.importorskip("cryptography")
    public, secret = str(tmp_path / "key.pub"), str(tmp_path / "key")
    holdfast.keygen(secret)
    assert main(["sign", made, "--key", secret]) == 0
    holdfast.verify(made, key=public)
    for file, data in bytes_of(made).items():
        path = pathlib.Path(made, file)
        path.write_bytes(data[:-30] + b"x" + data[-29:])
        error = DamagedCheckpointError if file == directory.MANIFEST_FILE else SignatureError
        with pytest.raises(error):
            holdfast.verify(made, key=public)
        path.write_bytes(data)
    forged = save_sharded(tmp_path / "forged.ckpt", state(seed=4))
    shutil.copy(made + ".sig", forged + ".sig")
    with pytest.raises(SignatureError):
        holdfast.verify(forged, key=public)
