"""Sharded checkpoints on object stores: written, replaced, read, copied, removed; what dies on the way stays unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets

import fsspec
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader
from torch.distributed.checkpoint.api import CheckpointException

import holdfast
from holdfast import directories, scanning
from holdfast.cli.main import main
from holdfast.dcp import StorageReader, StorageWriter
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, SaveError
from holdfast.front.saving import remove_path
from holdfast.storage import SEAL, marks, open_store
from holdfast.storage.remote import dead_uploads
from tests.support.shards import save_plain, save_sharded, state, unmarked

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=["memory", "s3"])
def url(request):
    if request.param == "s3":
        request.getfixturevalue("s3")
        yield f"s3://bucket/shards-{secrets.token_hex(4)}"
        return
    yield f"memory://shards-{secrets.token_hex(4)}"
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def memory():
    yield f"memory://shards-{secrets.token_hex(4)}"
    fsspec.filesystem("memory").store.clear()


def save(path, value, **words):
    dcp.save({"w": torch.full((1000,), value), "n": int(value)}, storage_writer=StorageWriter(path, **words))


def value_of(path, reader=StorageReader):
    into = {"w": torch.zeros(1000), "n": 0}
    dcp.load(into, storage_reader=reader(path))
    assert into["w"].eq(into["n"]).all()
    return into["n"]


def plainly(path):
    """What plain DCP reads there."""
    # This S3 server sends the checksum of the whole object with a part of it, which botocore then finds wrong.
    words = {"config_kwargs": {"response_checksum_validation": "when_required"}} if path.startswith("s3") else {}
    return value_of(path, functools.partial(FsspecReader, **words))


def files_of(path):
    root, _, name = path.rpartition("/")
    return sorted(unmarked(blob.name) for blob in open_store(root).files(name))


def change(path, file, offset=300):
    """Flip a byte of a file of a checkpoint."""
    root, _, name = path.rpartition("/")
    store = open_store(root)
    (found,) = (blob for blob in store.files(name) if unmarked(blob.name) == file)
    data = bytearray(store.read(f"{name}/{found.name}", 0, found.size))
    data[offset] ^= 1
    store.put(f"{name}/{found.name}", [bytes(data)])


class Stopped(Exception):  # noqa: N818 - a writer that is no more
    """Where a process would have been killed."""


def broken(store, number, after):
    """A store whose process dies before, or after, the request of this number that changes something."""
    left = [number]

    class Dying:
        def __init__(self, objects):
            self._objects = objects

        def __getattr__(self, name):
            real = getattr(self._objects, name)
            if name not in ("put", "complete", "remove", "copy"):
                return real

            def call(*args, **words):
                left[0] -= 1
                if left[0] < 0 or (left[0] == 0 and not after):
                    raise Stopped
                result = real(*args, **words)
                if left[0] == 0:
                    raise Stopped
                return result

            return call

    return dataclasses.replace(store, objects=Dying(store.objects)), left


def test_what_is_saved_there_is_found_verified_and_read(url):
    """A sharded checkpoint at a URL is listed, opened, verified and loaded as one of a folder is, and by plain DCP."""
    path = f"{url}/x.ckpt"
    save(path, 3, step=5, metrics={"loss": 0.5})
    (item,) = holdfast.catalog(url)
    assert (item.name, item.step, item.metrics, item.sharded, item.problem) == ("x.ckpt", 5, {"loss": 0.5}, True, "")
    assert holdfast.open(path).step == 5
    assert holdfast.verify(path).facts.step == directories.read_manifest(open_store(url), "x.ckpt").facts.step == 5
    assert holdfast.load(path)["w"].eq(3).all()
    assert value_of(path) == plainly(path) == 3
    assert files_of(path) == [".metadata", "__0_0.distcp", SEAL]
    assert item.size == open_store(url).size("x.ckpt")
    assert holdfast.newest(url) == path
    with pytest.raises(CheckpointNotFoundError, match="sharded"):
        holdfast.catalog(path)


def test_one_takes_the_place_of_another(url):
    """Saved over, a checkpoint is the new one for every reader, with no file of the old one beside it."""
    path = f"{url}/last.ckpt"
    for value in (1, 2, 3):
        save(path, value, step=value)
        assert value_of(path) == plainly(path) == value
        assert files_of(path) == [".metadata", "__0_0.distcp", SEAL]
    assert [item.step for item in holdfast.catalog(url)] == [3]
    assert open_store(url).leftovers(9) == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("old", [None, 1])
def test_wherever_a_save_dies_old_or_new_is_whole(memory, monkeypatch, old, after):
    """Before and after each request of a save: every reader gets the old or the new one; a sweep ends it either way."""
    monkeypatch.setattr(dead_uploads, "ABANDONED", -dead_uploads.ABANDONED)
    number, done = 0, False
    while not done:
        number += 1
        path = f"{memory}/{number}/last.ckpt"
        if old is not None:
            save(path, old, step=old)
        writer = StorageWriter(path, step=2)
        writer._store, left = broken(writer._store, number, after)
        with contextlib.suppress(CheckpointException):  # which DCP makes of it
            dcp.save({"w": torch.full((1000,), 2.0), "n": 2}, storage_writer=writer)
        done = left[0] > 0
        writer._draft = None  # nothing is dropped by the dead
        store = open_store(f"{memory}/{number}")
        there = [item.step for item in scanning_of(store)]
        assert there in ([] if old is None else [old], [2])
        assert there == [2] or not done
        if there:
            assert value_of(path) == there[0]
            assert holdfast.verify(path).facts.step == there[0]
            plain = plainly(path) if ".metadata" in files_of(path) else None
            assert plain in (there[0], old, None)
        forget_the_living()
        store.sweep(9)
        assert [item.step for item in scanning_of(store)] == there
        assert store.leftovers(9) == []
        assert files_of(path) == ([".metadata", "__0_0.distcp", SEAL] if there else [])
        if there:
            assert value_of(path) == plainly(path) == there[0]
    assert number >= 4


def scanning_of(store):
    return [item.facts for item in scanning.scan(store, extension=None, depth=9)]


def forget_the_living():
    """Have this process forget which drafts it has begun, as a new one would not know."""
    from holdfast.storage.remote import bundles

    bundles._living.clear()


def test_a_living_draft_is_not_swept(memory, monkeypatch):
    """What a save of this process has sent stays, whatever its age; what one of another has, until it is old."""
    store = open_store(memory)
    draft = store.draft("x.ckpt")
    store.put(f"x.ckpt/{marks.marked('__0_0.distcp', draft.mark)}", [b"x"])
    store.put(f"x.ckpt/{marks.marked('__0_0.distcp', marks.draw())}", [b"of another"])
    assert store.sweep() == []
    monkeypatch.setattr(dead_uploads, "ABANDONED", -dead_uploads.ABANDONED)
    assert store.sweep() == ["x.ckpt"]
    assert [blob.size for blob in store.files("x.ckpt")] == [1]
    draft.drop()
    assert store.files("x.ckpt") == []


def test_a_file_that_has_not_arrived_is_noticed_before_the_commit(memory):
    """A rank that wrote elsewhere, or less than it said, is an error that names the file; the old one is untouched."""
    save(f"{memory}/x.ckpt", 1)
    store = open_store(memory)
    for size, problem in ((None, "is not there"), (3, "has 3 bytes")):
        draft = store.draft("x.ckpt")
        shard = marks.marked("__1_0.distcp", draft.mark)
        if size is not None:
            store.put(f"{draft.folder}/{shard}", [b"x" * size])
        draft.add(SEAL, b"seal")
        with pytest.raises(OSError, match=rf"{shard} was sent with 7 bytes, and {problem}"):
            draft.settle({shard: 7})
        draft.drop()
    assert value_of(f"{memory}/x.ckpt") == 1
    assert files_of(f"{memory}/x.ckpt") == [".metadata", "__0_0.distcp", SEAL]


def test_readers_that_come_between_seal_and_names(memory):
    """The seal alone decides: files that wait under another name are read from there until they have their own."""
    save(f"{memory}/x.ckpt", 1, step=1)
    writer = StorageWriter(f"{memory}/x.ckpt", step=2)
    seen = []
    real = type(writer._store).put

    def put(store, name, chunks, **words):
        if seen and name.endswith("/.metadata"):
            path = f"{memory}/x.ckpt"
            seen.append((value_of(path), plainly(path), holdfast.verify(path).facts.step))
        result = real(store, name, chunks, **words)
        if name.endswith(SEAL):
            seen.append("sealed")
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(writer._store), "put", put)
        dcp.save({"w": torch.full((1000,), 2.0), "n": 2}, storage_writer=writer)
    assert seen == ["sealed", (2, 1, 2)]
    assert plainly(f"{memory}/x.ckpt") == 2


@pytest.mark.parametrize("file", [".metadata", "__0_0.distcp", SEAL])
def test_a_flipped_byte_is_found(memory, file):
    """What is not as it was saved is refused, by name, by verify and by load."""
    path = f"{memory}/x.ckpt"
    save(path, 1)
    change(path, file)
    for use in (holdfast.verify, holdfast.load):
        with pytest.raises(LoadError, match=r"damaged") as caught:
            use(path)
        assert isinstance(caught.value, DamagedCheckpointError)


def test_what_is_missing_is_damage_and_a_file_is_no_directory(memory):
    """A shard that is gone is named; where there is nothing, or a single file, the error says so."""
    path = f"{memory}/x.ckpt"
    save(path, 1)
    store = open_store(memory)
    (shard,) = (blob.name for blob in store.files("x.ckpt") if marks.mark_of(blob.name))
    store.remove(f"x.ckpt/{shard}")
    with pytest.raises(DamagedCheckpointError, match=rf"{shard}: it is missing"):
        holdfast.verify(path)
    with pytest.raises(CheckpointNotFoundError):
        holdfast.load(f"{memory}/none.ckpt")


def test_removed_it_is_gone_at_once(url):
    """The seal goes first, and all else after it; a second name stays whole."""
    save(f"{url}/x.ckpt", 1)
    store = open_store(url)
    assert store.link("x.ckpt", "last.ckpt") == "copy"
    remove_path(f"{url}/x.ckpt")
    assert (store.exists("x.ckpt"), store.files("x.ckpt")) == (False, [])
    assert value_of(f"{url}/last.ckpt") == plainly(f"{url}/last.ckpt") == 1


def test_copies_both_ways(url, tmp_path):
    """Copied there and back, a checkpoint has the same files, bytes and digest; again, nothing is to be done."""
    here = save_sharded(tmp_path / "run" / "x.ckpt", own_names=True, extra={"meta.pt": b"more"}, step=7)
    done = holdfast.copy(here, f"{url}/x.ckpt")
    assert done.copied == (f"{url}/x.ckpt",)
    assert holdfast.copy(here, f"{url}/x.ckpt").skipped == (f"{url}/x.ckpt",)
    assert holdfast.copy(str(tmp_path / "run"), f"{url}/all").copied == (f"{url}/all/x.ckpt",)
    back = tmp_path / "back" / "x.ckpt"
    holdfast.copy(f"{url}/x.ckpt", back)
    digests = [directories.with_directory(path, directories.digest_directory) for path in (here, f"{url}/x.ckpt", back)]
    assert digests[0] == digests[1] == digests[2]
    assert holdfast.load(f"{url}/all/x.ckpt")["state_dict"]["weight"].equal(state()["state_dict.weight"])


def test_a_copy_of_what_is_damaged_is_refused(memory, tmp_path):
    """A flipped byte at the source is told with file and tensor, and nothing of it is at the target."""
    here = save_sharded(tmp_path / "x.ckpt", own_names=True)
    holdfast.copy(here, f"{memory}/x.ckpt")
    change(f"{memory}/x.ckpt", "__1_0.distcp")
    with pytest.raises(DamagedCheckpointError, match=r"__1_0.*state_dict\.weight"):
        holdfast.copy(f"{memory}/x.ckpt", tmp_path / "y.ckpt")
    with pytest.raises(DamagedCheckpointError, match=r"__1_0.*state_dict\.weight"):
        holdfast.copy(f"{memory}/x.ckpt", f"{memory}/y.ckpt")
    assert open_store(memory).files("y.ckpt") == []
    assert not (tmp_path / "y.ckpt").exists()


def test_names_that_all_saves_had_are_not_written_over(memory, tmp_path):
    """Shards from before each save had its own names can be copied to a URL, but not over others of that kind."""
    for name in ("a", "b"):
        save_sharded(tmp_path / f"{name}.ckpt", state(ord(name)), step=ord(name))
    holdfast.copy(tmp_path / "a.ckpt", f"{memory}/x.ckpt")
    with pytest.raises(SaveError, match=r"same names.*remove it first"):
        holdfast.copy(tmp_path / "b.ckpt", f"{memory}/x.ckpt", force=True)
    assert holdfast.verify(f"{memory}/x.ckpt").facts.step == ord("a")


def test_plain_directories_there_are_listed_and_loaded(memory, tmp_path):
    """What plain DCP has saved at a URL is a checkpoint without facts, and is loaded, exported and told apart."""
    save_plain(tmp_path / "plain")
    store = open_store(memory)
    for file in (tmp_path / "plain").iterdir():
        store.put(f"plain/{file.name}", [file.read_bytes()])
    (item,) = scanning.survey(store, depth=2).found
    assert (item.name, item.facts, item.sharded) == ("plain", None, True)
    assert directories.is_sharded_at(f"{memory}/plain")
    assert holdfast.load(f"{memory}/plain")["global_step"] == 7
    assert holdfast.verify(f"{memory}/plain") is None
    save(f"{memory}/plain", 4)
    assert files_of(f"{memory}/plain") == [".metadata", "__0_0.distcp", SEAL]
    assert plainly(f"{memory}/plain") == 4


def test_export_and_single_tensors(memory, tmp_path):
    """An export makes one file of it; the command shows and verifies it."""
    save(f"{memory}/x.ckpt", 2)
    holdfast.export(f"{memory}/x.ckpt", tmp_path / "one.ckpt")
    assert holdfast.load(tmp_path / "one.ckpt")["w"].eq(2).all()
    assert [main([verb, f"{memory}/x.ckpt"]) for verb in ("show", "verify")] == [0, 0]
    assert main(["ls", memory]) == 0


def run_of(folder, count=3):
    """Sharded checkpoints of one run, the newest under a second name."""
    for step in range(1, count + 1):
        names = {"ranked": f"step={step}.ckpt"}
        facts = {"names": names, "sequence": step, "step": step, "metrics": {"loss": 1.0 / step}}
        save_sharded(f"{folder}/step={step}.ckpt", state(step), own_names=True, **facts)
    open_store(folder).link(f"step={count}.ckpt", "last.ckpt")


def test_tags_and_prune(memory):
    """A pin keeps a sharded checkpoint there, and what is pruned is gone, with all its files."""
    run_of(memory)
    holdfast.open(f"{memory}/step=1.ckpt").pin()
    assert main(["tag", f"{memory}/step=2.ckpt", "paper"]) == 0
    assert holdfast.open(f"{memory}/step=2.ckpt").tags == ("paper",)
    gone = [item.name for item in holdfast.prune(memory, keep=[holdfast.Latest(1)], dry_run=False) if not item.keep]
    assert gone == ["step=2.ckpt"]
    assert {item.name for item in holdfast.catalog(memory)} == {"last.ckpt", "step=1.ckpt", "step=3.ckpt"}
    assert open_store(memory).files("step=2.ckpt") == []


def test_a_sync_brings_shards_there_and_back(url, tmp_path):
    """Sharded checkpoints and their second names are carried to a URL and back, whole; again, nothing is to be done."""
    here, back = tmp_path / "run", tmp_path / "back"
    run_of(str(here))
    assert len(holdfast.sync(here, url).copied) == 3
    assert holdfast.sync(here, url).copied == ()
    holdfast.sync(url, back)
    for name in ("step=1.ckpt", "step=3.ckpt", "last.ckpt"):
        places = (here / name, f"{url}/{name}", back / name)
        assert len({directories.with_directory(place, directories.digest_directory)[0] for place in places}) == 1
    save_sharded(here / "last.ckpt", state(9), own_names=True, sequence=9, step=9, names={"last": "last.ckpt"})
    holdfast.sync(here, url)
    assert holdfast.verify(f"{url}/last.ckpt").facts.step == 9
    assert files_of(f"{url}/last.ckpt") == [".metadata", "__0_0.distcp", "__1_0.distcp", SEAL]
