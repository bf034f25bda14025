"""An ordinary file: whatever way torch has of reading one gives back what was saved."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.serialization import config

import holdfast
from tests.support.files import content, save, small_state
from tests.support.properties import examples
from tests.support.states import arrays, dense, plain, same, special, states


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield made


def readings(path):
    """Each way of reading a file, by a name for it."""
    yield "torch", torch.load(path, weights_only=False)
    yield "torch, mapped", torch.load(path, weights_only=False, mmap=True)
    with config.patch({"load.calculate_storage_offsets": True}):
        yield "torch, offsets calculated", torch.load(path, weights_only=False)
        yield "torch, mapped, offsets calculated", torch.load(path, weights_only=False, mmap=True)
    yield "holdfast", holdfast.load(path, weights_only=False)


@examples(60)
@given(state=states())
def test_torch_reads_back_the_same(folder, state):
    """Arbitrary states come back the same to the bit through every way of reading."""
    path = save(os.path.join(folder, "x.ckpt"), {"state": state})
    for way, loaded in readings(path):
        assert same(loaded["state"], state), way


@examples(60)
@given(state=states(leaves=st.one_of(dense(), plain(), special())))
def test_the_safe_loader_reads_back_the_same(folder, state):
    """Tensors and plain values come back the same with ``weights_only=True``, mapped or not."""
    path = save(os.path.join(folder, "x.ckpt"), {"state": state})
    assert same(holdfast.load(path)["state"], state)
    with torch.serialization.safe_globals([bytes]):  # which torch wants for empty ones
        assert same(torch.load(path, weights_only=True)["state"], state)
        assert same(torch.load(path, weights_only=True, mmap=True)["state"], state)


@examples(20)
@given(state=states(leaves=st.one_of(arrays(), dense())))
def test_numpy_arrays_come_back(folder, state):
    """NumPy arrays come back the same when the file is trusted."""
    path = save(os.path.join(folder, "x.ckpt"), {"state": state})
    assert same(holdfast.load(path, weights_only=False)["state"], state)


def test_tied_tensors_stay_tied(tmp_path):
    """Views of one storage still share it after loading, so that tied weights stay tied."""
    weight = torch.arange(6.0)
    path = save(tmp_path / "x.ckpt", {"state_dict": {"a": weight, "b": weight, "part": weight[2:4]}})
    loaded = holdfast.load(path)["state_dict"]
    loaded["part"].fill_(-1.0)
    assert loaded["a"].tolist() == loaded["b"].tolist() == [0.0, 1.0, -1.0, -1.0, 4.0, 5.0]


def test_data_start_at_multiples_of_64(tmp_path):
    """Every tensor's bytes are aligned to 64, as mapping and direct I/O want them."""
    path = save(tmp_path / "x.ckpt", {"t": [torch.full((size,), 7, dtype=torch.uint8) for size in range(1, 130, 8)]})
    data = content(path)
    for size in range(1, 130, 8):
        assert any(data[at : at + size] == b"\x07" * size for at in range(0, len(data), 64))


def test_the_manifest_tells_what_the_state_holds(tmp_path):
    """The manifest names every tensor with its type, shape and record, and every record with its size."""
    path = save(tmp_path / "x.ckpt", small_state(), step=2, metrics={"val_loss": 0.5})
    manifest = holdfast.verify(path)
    tensors = {tensor.name: (tensor.dtype, tensor.shape, tensor.record) for tensor in manifest.tensors}
    assert tensors["state_dict.weight"] == ("float32", (3, 4), "data/0")
    assert tensors["optimizer_states.0.state.0.step"][:2] == ("float32", ())
    assert {record.name: record.size for record in manifest.records}["data/0"] == 48
    assert (manifest.facts.step, manifest.facts.metrics) == (2, {"val_loss": 0.5})


def test_what_torch_reads_is_what_was_verified(tmp_path):
    """A file that is replaced between the check and the load is not loaded in place of the one that was checked."""
    path = save(tmp_path / "x.ckpt", {"x": torch.ones(2)})
    other = save(tmp_path / "y.ckpt", {"x": torch.zeros(2)})
    real = torch.load

    def replace_then_load(file, **options):
        os.replace(other, path)
        return real(file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", replace_then_load)
        assert holdfast.load(path)["x"].tolist() == [1.0, 1.0]
