"""What tensors are like, and single ones, without the rest of the file."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given

import holdfast
from holdfast import ConfigurationError, DamagedCheckpointError, LoadError
from holdfast.cli import main
from holdfast.engine.peeking import peek
from holdfast.snapshot import named_tensors
from holdfast.storage.remote import RemoteStore
from tests.support.files import content, offsets, put, save, small_state
from tests.support.properties import examples
from tests.support.states import dense, same, special, states


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def writers():
    """Each way of making a file, by a name for it."""
    return {
        "holdfast": save,
        "torch": lambda path, state: torch.save(state, path),
        "torch, old": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    }


def flip(path, record, place=0):
    """Flip a bit of a record's data."""
    data = bytearray(content(path))
    begin = offsets(bytes(data))[record]
    lengths = int.from_bytes(data[begin + 26 : begin + 28], "little") + int.from_bytes(
        data[begin + 28 : begin + 30], "little"
    )
    data[begin + 30 + lengths + place] ^= 4
    put(path, bytes(data))


@pytest.mark.parametrize("writer", ["holdfast", "torch"])
@examples(40)
@given(state=states(leaves=dense() | special()))
def test_each_tensor_is_what_a_load_gives(folder, writer, state):
    """Of any state, each tensor read alone is the same to the bit as the one in the state that was saved."""
    path = os.path.join(folder, "x.ckpt")
    writers()[writer](path, {"state": state})
    wanted = dict(named_tensors({"state": state}))
    with peek(path) as look:
        assert list(look.tensors) == list(wanted)
        for name, tensor in look.tensors.items():
            assert same(look.values(tensor), wanted[name].detach()), name


@examples(60)
@given(tensor=dense())
def test_the_numbers_are_those_of_numpy(folder, tensor):
    """Minimum, maximum, mean, norm and counts are what NumPy computes of the finite values in double precision."""
    path = save(os.path.join(folder, "x.ckpt"), {"x": tensor})
    (found,) = holdfast.statistics(path)
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64).numpy().reshape(-1)
    nan, finite = np.isnan(wide), np.isfinite(wide)
    assert (found.nans, found.infinities) == (int(nan.sum()), int((~nan & ~finite).sum()))
    values = wide[finite]
    ordered = np.abs(values) if tensor.is_complex() else values
    if not values.size:
        assert (found.minimum, found.maximum, found.mean) == (None, None, None)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        assert found.minimum == pytest.approx(float(ordered.min()), rel=1e-6, nan_ok=True)
        assert found.maximum == pytest.approx(float(ordered.max()), rel=1e-6, nan_ok=True)
        scale = float(np.abs(values).max())
        expected = float(np.linalg.norm(values / scale) * scale) if 0 < scale < math.inf else scale
        assert found.norm == pytest.approx(expected, rel=1e-6)
        assert abs(found.mean - values.mean()) <= 1e-9 * scale or not np.isfinite(values.mean())


def test_large_and_strided_tensors_are_measured_whole(tmp_path):
    """Tensors of many blocks, contiguous or not, have the numbers of all their elements; integers exact ones."""
    base = torch.arange(3_000_000, dtype=torch.int64).reshape(1000, 3000)
    path = save(
        tmp_path / "x.ckpt", {"x": base, "t": base.t(), "part": base[::2, 5:], "wide": base.expand(2, 1000, 3000)}
    )
    found = {item.name: item for item in holdfast.statistics(path)}
    last = 2_999_999
    assert (found["x"].minimum, found["x"].maximum, found["x"].mean) == (0, last, last / 2)
    assert found["t"].norm == pytest.approx(found["x"].norm, rel=1e-12)
    assert (found["part"].minimum, found["part"].maximum) == (5, last - 3000)
    assert found["wide"].norm == pytest.approx(found["x"].norm * math.sqrt(2), rel=1e-12)
    assert {item.record for item in found.values()} == {"data/0"}


@pytest.mark.parametrize("writer", ["holdfast", "torch", "torch, old"])
def test_names_may_be_short_or_patterns(tmp_path, writer):
    """A tensor is found by its full name, by its name in the model, or by a pattern, in any kind of file."""
    path = str(tmp_path / "x.ckpt")
    writers()[writer](path, small_state())
    assert torch.equal(holdfast.tensor(path, "weight"), small_state()["state_dict"]["weight"])
    assert torch.equal(holdfast.tensor(path, "state_dict.bias"), small_state()["state_dict"]["bias"])
    assert [item.name for item in holdfast.statistics(path, "state_dict.*")] == ["state_dict.weight", "state_dict.bias"]
    for look in (lambda: holdfast.tensor(path, "weigth"), lambda: holdfast.statistics(path, ["weight", "weigth"])):
        with pytest.raises(ConfigurationError, match="did you mean weight"):
            look()


@pytest.mark.parametrize("writer", ["holdfast", "torch"])
def test_only_what_is_looked_at_is_read_and_that_is_checked(tmp_path, writer):
    """Damage in a record is found when it is looked at, by its name, and does not keep others from being read."""
    path = str(tmp_path / "x.ckpt")
    writers()[writer](path, small_state())
    flip(path, "data/1", 2)
    assert torch.equal(holdfast.tensor(path, "weight"), small_state()["state_dict"]["weight"])
    with pytest.raises(DamagedCheckpointError, match="data/1"):
        holdfast.tensor(path, "bias")
    with pytest.raises(DamagedCheckpointError, match="data/1"):
        holdfast.statistics(path)


@pytest.mark.parametrize("writer", ["holdfast", "torch"])
def test_a_damaged_skeleton_and_a_cut_file_are_refused(tmp_path, writer):
    """A flip in the pickle, and a file that was cut off, are refused before anything of them is used."""
    path = str(tmp_path / "x.ckpt")
    writers()[writer](path, small_state())
    whole = content(path)
    flip(path, "data.pkl", 30)
    with pytest.raises(DamagedCheckpointError, match=r"data\.pkl"):
        holdfast.tensor(path, "weight")
    put(path, whole[: len(whole) // 2])
    with pytest.raises(DamagedCheckpointError):
        holdfast.statistics(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    """Nothing, a directory, text and an empty file are errors of ours that name the path."""
    for path in (tmp_path / "none.ckpt", tmp_path, put(tmp_path / "t.ckpt", b"text"), put(tmp_path / "e.ckpt", b"")):
        with pytest.raises(LoadError, match=os.path.basename(path)):
            holdfast.statistics(path)


def test_of_a_remote_file_only_the_ranges_are_fetched(tmp_path, monkeypatch):
    """One tensor of a checkpoint behind a URL costs its own bytes and a few kilobytes, and is checked."""
    state = {"small": torch.arange(10.0), "large": torch.ones(2_000_000), "other": torch.arange(3)}
    save("memory://looks/x.ckpt", state)
    fetched = []
    real = RemoteStore.read

    def read(store, name, offset, length):
        fetched.append(length)
        return real(store, name, offset, length)

    monkeypatch.setattr(RemoteStore, "read", read)
    assert torch.equal(holdfast.tensor("memory://looks/x.ckpt", "small"), state["small"])
    assert torch.equal(holdfast.tensor("memory://looks/x.ckpt", "other"), state["other"])
    assert sum(fetched) < 100_000
    assert holdfast.statistics("memory://looks/x.ckpt", "large")[0].norm == pytest.approx(math.sqrt(2_000_000))
    data = bytearray(fsspec.filesystem("memory").cat_file("/looks/x.ckpt"))
    data[len(data) // 2] ^= 1
    fsspec.filesystem("memory").pipe_file("/looks/x.ckpt", bytes(data))
    assert torch.equal(holdfast.tensor("memory://looks/x.ckpt", "small"), state["small"])
    with pytest.raises(DamagedCheckpointError, match="data/1"):
        holdfast.tensor("memory://looks/x.ckpt", "large")
    with pytest.raises(holdfast.CheckpointNotFoundError, match="none"):
        holdfast.tensor("memory://looks/none.ckpt", "large")
    torch.save(small_state(), tmp_path / "stock.ckpt")
    fsspec.filesystem("memory").pipe_file("/looks/stock.ckpt", content(tmp_path / "stock.ckpt"))
    assert torch.equal(holdfast.tensor("memory://looks/stock.ckpt", "bias"), small_state()["state_dict"]["bias"])


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_that_are_not_plain(tmp_path):
    """Sparse tensors are measured by their stored values; those without values say so; parameters are like others."""
    eye = torch.eye(4)
    state = {
        "coo": eye.to_sparse(),
        "csr": eye.to_sparse_csr(),
        "meta": torch.empty(3, device="meta"),
        "parameter": torch.nn.Parameter(eye),
    }
    found = {item.name: item for item in holdfast.statistics(save(tmp_path / "x.ckpt", state))}
    assert found["coo"].norm == found["csr"].norm == found["parameter"].norm == 2.0
    assert (found["coo"].minimum, found["parameter"].minimum) == (1.0, 0.0)
    assert (found["meta"].norm, found["meta"].nans, found["meta"].shape) == (None, None, (3,))


def test_a_look_takes_the_memory_of_what_is_looked_at(tmp_path):
    """Measuring a file of many tensors takes the memory of one of them, and reading a small one takes nearly none."""
    path = save(tmp_path / "x.ckpt", {"small": torch.ones(8), **{f"t{n}": torch.ones(2_000_000) for n in range(12)}})
    code = f"""
import resource, torch, holdfast
holdfast.statistics({save(tmp_path / "y.ckpt", {"x": torch.ones(1000)})!r})
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
holdfast.tensor({path!r}, "small")
small = peak() - before
assert all(item.mean == 1.0 for item in holdfast.statistics({path!r}))
print(small, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    small, whole = map(int, done.stdout.split())
    assert small < 8 << 20
    assert whole < 32 << 20  # of 96 MB: one tensor of 8, its pages, the blocks and what reads them


def test_the_command_shows_one_tensor(tmp_path, capsys):
    """``show --tensor`` prints a table, and with ``--json`` objects whose keys are promised; a wrong name is usage."""
    path = save(tmp_path / "x.ckpt", {"x": torch.tensor([1.0, math.nan, math.inf]), "c": torch.tensor([3 + 4j])})
    assert main(["show", path, "--tensor", "x"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "dtype", "shape", "size", "min", "max", "mean", "norm", "NaN", "inf"]
    assert row.split() == ["x", "float32", "3", "12", "B", "1", "1", "1", "1", "1", "1"]
    assert main(["show", path, "--json", "--tensor", "x", "--tensor", "c*"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {"path", "tensors"}
    x, c = shown["tensors"]
    assert set(x) == {
        "name", "dtype", "shape", "bytes", "record", "minimum", "maximum", "mean", "norm", "nans", "infinities",
    }  # fmt: skip
    assert (c["mean"], c["norm"]) == ([3.0, 4.0], 5.0)
    assert main(["show", path, "--tensor", "y"]) == 2
    assert "no tensor 'y'" in capsys.readouterr().err
