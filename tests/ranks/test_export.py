"""Sharded checkpoints as one file for others: put together tensor by tensor, whole and checked."""

import os
import pathlib
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

import holdfast
from holdfast import ConfigurationError, DamagedCheckpointError
from holdfast.cli.main import main
from holdfast.engine import load_sharded
from tests.ranks import jobs_sharded as jobs
from tests.support.ranks import run_ranks
from tests.support.shards import shard_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of two ranks of ours, and one of plain DCP's, of the same state but for the seed."""
    folder = str(tmp_path_factory.mktemp("runs"))
    run_ranks(2, jobs.save, folder, ["a.ckpt", "b.ckpt"])
    run_ranks(2, jobs.save_plainly, folder, "plain.ckpt", 2)
    return folder


@pytest.mark.parametrize("name", ["b.ckpt", "plain.ckpt"])
def test_one_file_holds_the_whole_state(saved, name, tmp_path):
    """``torch.load`` and ``holdfast.load`` read from one file, bit by bit, what the directory holds."""
    out = tmp_path / "one.ckpt"
    done = holdfast.export(f"{saved}/{name}", out)
    assert done.files == (str(out),)
    wanted = load_sharded(f"{saved}/{name}")
    for state in (torch.load(out, weights_only=True), holdfast.load(out)):
        assert jobs.same(wanted, state)
    assert holdfast.verify(out).facts.step == (2 if name == "b.ckpt" else 0)


def test_its_manifest_has_the_facts_of_its_source(saved, tmp_path):
    """The step and the number of ranks that trained go along; the reason says that it is an export."""
    holdfast.export(f"{saved}/b.ckpt", tmp_path / "one.ckpt")
    facts = holdfast.verify(tmp_path / "one.ckpt").facts
    assert (facts.step, facts.ranks) == (2, 2)
    assert facts.reason.startswith("exported from")


@pytest.mark.parametrize("name", ["b.ckpt", "plain.ckpt"])
def test_the_weights_go_into_safetensors_and_a_torch_file(saved, name, tmp_path):
    """Both forms hold the whole weights bit by bit, of every dtype."""
    wanted = load_sharded(f"{saved}/{name}")["model"]
    holdfast.export(f"{saved}/{name}", tmp_path / "w.pt", to="torch")
    assert jobs.same(wanted, dict(torch.load(tmp_path / "w.pt", weights_only=True)))
    holdfast.export(f"{saved}/{name}", tmp_path / "hub")
    assert jobs.same(wanted, load_file(tmp_path / "hub" / "model.safetensors"))


def test_safetensors_of_a_real_model_in_several_files(tmp_path):
    """A plain DCP directory of a model becomes shards with an index, the same weights in another dtype."""
    model = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.Linear(40, 5))
    dcp.save({"model": model.state_dict()}, checkpoint_id=str(tmp_path / "d"), no_dist=True)
    done = holdfast.export(tmp_path / "d", tmp_path / "hub", max_shard_size=1000, dtype="bfloat16")
    assert len(done.files) > 2
    found = {key: value for file in done.files[:-1] for key, value in load_file(file).items()}
    assert jobs.same({key: value.bfloat16() for key, value in model.state_dict().items()}, found)


def test_a_damaged_shard_is_named_and_nothing_is_left(saved, tmp_path):
    """A byte that has flipped in one tensor's part is an error that names file and tensor; no file appears."""
    run_ranks(2, jobs.save, str(tmp_path), ["x.ckpt"])
    shard = pathlib.Path(shard_of(tmp_path / "x.ckpt", 1))
    data = bytearray(shard.read_bytes())
    data[data.index(load_sharded(tmp_path / "x.ckpt")["model"]["big"][200].numpy().tobytes())] ^= 1
    shard.write_bytes(data)
    for out in ("one.ckpt", "w.pt"):
        with pytest.raises(DamagedCheckpointError, match=r"__1_0\.holdfast-\w+\.distcp.*model\.big"):
            holdfast.export(tmp_path / "x.ckpt", tmp_path / out, to="torch" if out == "w.pt" else None)
    assert sorted(os.listdir(tmp_path)) == ["x.ckpt"]


def test_what_does_not_go_with_a_whole_checkpoint_is_an_error(saved, tmp_path):
    """A whole state is not cast, renamed or picked from, and no file is written over unasked."""
    for words in ({"dtype": "float16"}, {"strip_prefix": "a."}, {"entry": "model"}):
        with pytest.raises(ConfigurationError, match="as it is"):
            holdfast.export(f"{saved}/b.ckpt", tmp_path / "one.ckpt", **words)
    (tmp_path / "one.ckpt").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="there already"):
        holdfast.export(f"{saved}/b.ckpt", tmp_path / "one.ckpt")
    assert (tmp_path / "one.ckpt").read_bytes() == b"mine"


def test_the_command_exports_a_directory(saved, tmp_path, capsys):
    """``holdfast export DIR ONE.ckpt`` writes the whole state, and says what it wrote."""
    assert main(["export", f"{saved}/a.ckpt", str(tmp_path / "one.ckpt")]) == 0
    assert "one.ckpt" in capsys.readouterr().out
    assert jobs.same(load_sharded(f"{saved}/a.ckpt"), holdfast.load(tmp_path / "one.ckpt"))


def peak():
    """The most memory that this process has had since that was last forgotten, in bytes."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def export_in_little_memory(folder):
    """Return by how much this process grew while it exported."""
    with open("/proc/self/clear_refs", "w") as forget:
        forget.write("5")
    before = peak()
    holdfast.export(f"{folder}/d", f"{folder}/one.ckpt")
    return peak() - before


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of a process")
def test_it_takes_memory_of_a_part_of_the_checkpoint(tmp_path):
    """The process that exports grows by far less than the checkpoint: by its largest tensor and some room."""
    state = {"model": {f"w{place}": torch.full((2 << 20,), float(place)) for place in range(40)}}
    dcp.save(state, checkpoint_id=str(tmp_path / "d"), no_dist=True)
    (grown,) = run_ranks(1, export_in_little_memory, str(tmp_path))
    assert 0 < grown < 40 * (8 << 20) / 2
    assert jobs.same(state, torch.load(tmp_path / "one.ckpt"))
