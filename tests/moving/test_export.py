"""Exports: what is written, that other programs read it, and what is refused."""

from __future__ import annotations

import json
import os

import pytest
import safetensors
import safetensors.torch
import torch

import holdfast
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, DamagedCheckpointError, LoadError, SaveError
from holdfast.format import safetensors as form
from tests.moving.states import lightning_state, same, weights
from tests.support.files import content, listing, put, save


@pytest.fixture
def source(tmp_path):
    return save(tmp_path / "x.ckpt", lightning_state(), step=120, epoch=4, metrics={"val_loss": 0.5})


def read_all(folder):
    """All tensors that an index, or a single file, leads to, as its reader finds them."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
    found = {}
    with open(index) as file:
        places = json.load(file)["weight_map"]
    for name, shard in places.items():
        with safetensors.safe_open(os.path.join(folder, shard), framework="pt") as opened:
            found[name] = opened.get_tensor(name)
    return found


@pytest.mark.parametrize("limit", ["1B", "100B", 300, "5GB"])
def test_every_weight_is_there_bit_by_bit(source, tmp_path, limit):
    """Whatever the size of a shard, the safetensors library reads every weight as it was saved, through the index."""
    done = holdfast.export(source, tmp_path / "out", max_shard_size=limit)
    found, expected = read_all(tmp_path / "out"), weights()
    assert done.tied == {"model.head.weight": "model.embedding.weight"}
    assert set(found) == set(expected) - set(done.tied)
    assert all(same(found[name], expected[name]) for name in found)
    assert sorted(done.files) == [str(tmp_path / "out" / name) for name in listing(tmp_path / "out")]
    assert done.tensors == len(found)


def test_no_shard_is_too_large(source, tmp_path):
    """A shard has at most the bytes that were asked for, unless it holds one larger tensor alone; the index adds up."""
    done = holdfast.export(source, tmp_path / "out", max_shard_size=100)
    total = 0
    for path in done.files[:-1]:
        tensors = safetensors.torch.load_file(path)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 100 or len(tensors) == 1
        total += size
    with open(done.files[-1]) as file:
        assert json.load(file)["metadata"]["total_size"] == total == done.size
    assert [os.path.basename(path) for path in done.files[:2]] == [
        f"model-0000{place}-of-{len(done.files) - 1:05d}.safetensors" for place in (1, 2)
    ]


def test_the_writer_writes_what_the_library_writes(tmp_path):
    """A file is, byte by byte, what the safetensors library makes of the same tensors and metadata."""
    tensors = {name: tensor.contiguous() for name, tensor in weights().items() if "head" not in name}
    tensors |= {'quoted "\n\u2028é': torch.ones(1), "u16": torch.ones(3, dtype=torch.uint16)}
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    path = save(tmp_path / "x.ckpt", {"state_dict": tensors})
    (written,) = holdfast.export(path, tmp_path / "out.safetensors").files
    with safetensors.safe_open(written, framework="pt") as file:
        own = file.metadata()
    data = content(written)
    length = form.header_length(data)
    entries = form.decode(data[8 : 8 + length], len(data)).entries
    assert own.keys() == {"format", "holdfast"}
    theirs = safetensors.torch.save(tensors, {"format": "pt"})
    assert form.encode(entries, {"format": "pt"}) + data[8 + length :] == theirs


def test_a_cast_is_torchs(source, tmp_path):
    """``dtype`` casts the floating-point weights as torch does, and leaves counts, masks and complex ones."""
    holdfast.export(source, tmp_path / "out", dtype="bf16", max_shard_size=64)
    for name, tensor in read_all(tmp_path / "out").items():
        expected = weights()[name]
        assert same(tensor, expected.bfloat16() if expected.is_floating_point() else expected)


def test_what_a_dtype_cannot_hold_is_warned_of(tmp_path):
    """A finite value that becomes infinite is warned of, by the name of its tensor; one that was so before is not."""
    state = {"state_dict": {"big": torch.tensor([1e6]), "inf": torch.tensor([float("inf")]), "small": torch.ones(1)}}
    path = save(tmp_path / "x.ckpt", state)
    with pytest.warns(UserWarning, match="1 tensors have finite values that torch.float16 cannot hold.*: big"):
        done = holdfast.export(path, tmp_path / "out", dtype=torch.float16)
    assert done.overflowed == ("big",)


def test_a_prefix_is_taken_off(source, tmp_path):
    """With ``strip_prefix`` names lose it, and what lacks it stays out and is named."""
    done = holdfast.export(source, tmp_path / "out", strip_prefix="model.")
    expected = {name.removeprefix("model.") for name in weights() if name.startswith("model.")}
    assert set(read_all(tmp_path / "out")) | set(done.tied) == expected
    assert done.left_out == ("loss.weight",)
    with pytest.raises(ConfigurationError, match=r"strip_prefix.*nonsense.*begin with"):
        holdfast.export(source, tmp_path / "other", strip_prefix="nonsense.")


@pytest.mark.parametrize("optimizer", [False, True])
def test_to_torch(source, tmp_path, optimizer):
    """``to="torch"`` writes what ``torch.load(weights_only=True)`` reads, ties and all, with a manifest of its own."""
    path = tmp_path / "weights.pt"
    holdfast.export(source, path, to="torch", optimizer=optimizer)
    found = torch.load(path, weights_only=True)
    if optimizer:
        assert found["optimizer_states"][0]["param_groups"] == [{"lr": 0.1}]
        found = found["state_dict"]
    assert list(found) == list(weights())
    assert all(same(found[name], tensor) for name, tensor in weights().items())
    assert found["model.head.weight"].data_ptr() == found["model.embedding.weight"].data_ptr()
    facts = holdfast.verify(path).facts
    assert (facts.step, facts.epoch, facts.weights_only, dict(facts.names)) == (120, 4, True, {})


def test_to_torch_holds_what_safetensors_cannot(tmp_path):
    """Sparse, quantized and wide complex tensors are refused by name for safetensors, and go to a torch file."""
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.rand(3), 0.1, 0, torch.qint8),
        "wide": torch.zeros(2, dtype=torch.complex128),
    }
    for name, tensor in odd.items():
        path = save(tmp_path / f"{name}.ckpt", {"state_dict": {"w": torch.ones(1), name: tensor}})
        with pytest.raises(ConfigurationError, match=f"the tensor {name}: .*--to torch"):
            holdfast.export(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        holdfast.export(path, tmp_path / f"{name}.pt", to="torch")
        found = torch.load(tmp_path / f"{name}.pt", weights_only=True)[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(
            found.to_dense() if name == "sparse" else found, tensor.to_dense() if name == "sparse" else tensor
        )


def test_nothing_is_written_over(source, tmp_path):
    """Files that are there stay as they are, unless ``force``; then no file of the earlier export is left beside."""
    out = tmp_path / "out"
    holdfast.export(source, out, max_shard_size=100)
    before = {name: content(out / name) for name in listing(out)}
    with pytest.raises(ConfigurationError, match=r"is there already.*--force"):
        holdfast.export(source, out)
    assert {name: content(out / name) for name in listing(out)} == before
    holdfast.export(source, out, force=True)
    assert listing(out) == ["model.safetensors"]
    holdfast.export(source, out, max_shard_size=300, force=True)
    assert "model.safetensors" not in listing(out)
    assert set(read_all(out)) == set(weights()) - {"model.head.weight"}


def test_an_export_that_fails_leaves_no_index(source, tmp_path, monkeypatch):
    """If a shard cannot be written, there is no index that would tell of it, not even the one before."""
    out = tmp_path / "out"
    holdfast.export(source, out, max_shard_size=100)
    (out / "model-00003-of-00009.safetensors").unlink(missing_ok=True)
    count = len(listing(out))
    assert count > 3
    name = listing(out)[2]
    os.unlink(out / name)
    os.mkdir(out / name)  # a directory in the way of the shard
    with pytest.raises(SaveError):
        holdfast.export(source, out, max_shard_size=100, force=True)
    assert "model.safetensors.index.json" not in listing(out)


def test_a_damaged_checkpoint_is_not_exported(source, tmp_path):
    """One flipped bit in a tensor, and nothing is written."""
    data = bytearray(content(source))
    data[len(data) // 2] ^= 1
    put(source, bytes(data))
    with pytest.raises(DamagedCheckpointError):
        holdfast.export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
@pytest.mark.parametrize("entry", ["state_dict", "model", "", "mine"])
def test_stock_files(tmp_path, options, entry):
    """Weights are found in files of torch.save, of any age, under the usual keys, or under the one that is named."""
    state = {"a": torch.rand(3), "b": torch.rand(2)}
    torch.save({entry: state} if entry else state, tmp_path / "x.pt", **options)
    named = entry if entry == "mine" else None
    holdfast.export(tmp_path / "x.pt", tmp_path / "out", entry=named)
    assert all(same(tensor, state[name]) for name, tensor in read_all(tmp_path / "out").items())
    if named:
        with pytest.raises(LoadError, match=r"no weights were found.*It has: mine"):
            holdfast.export(tmp_path / "x.pt", tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"to": "onnx"}, "`to` can be"),
        ({"dtype": "int8"}, "`dtype` can be one of float64"),
        ({"dtype": "nonsense"}, "got 'nonsense'"),
        ({"max_shard_size": "5 parsecs"}, "max_shard_size.*'5 parsecs'"),
        ({"max_shard_size": 0}, "above 0"),
        ({"optimizer": True}, "--to torch"),
        ({"entry": "nothing"}, "`entry`='nothing'"),
    ],
)
def test_wrong_words(source, tmp_path, words, message):
    """A wrong argument is an error that names the value, before anything is written."""
    with pytest.raises(ConfigurationError, match=message):
        holdfast.export(source, tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_no_such_file(tmp_path):
    """A path at which there is nothing, or a directory, is told as such."""
    for path in (tmp_path / "nothing.ckpt", tmp_path):
        with pytest.raises(CheckpointNotFoundError):
            holdfast.export(path, tmp_path / "out")


def test_over_a_url(source):
    """An export goes to an fsspec URL as well, and comes from one."""
    with open(source, "rb") as file:
        import fsspec

        with fsspec.open("memory://export-test/x.ckpt", "wb") as remote:
            remote.write(file.read())
    done = holdfast.export("memory://export-test/x.ckpt", "memory://export-test/out", max_shard_size=100)
    assert done.files[-1] == "memory://export-test/out/model.safetensors.index.json"
    made = holdfast.import_checkpoint("memory://export-test/out", "memory://export-test/y.ckpt")
    assert holdfast.load(made.path)["state_dict"].keys() == weights().keys()


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_source_is_not_written_over(source, tmp_path, link):
    """By none of its names is a checkpoint replaced by what is exported or imported from it, with ``force`` neither."""
    other = str(tmp_path / "other.ckpt")
    if link is not None:
        link(source, other)
    before = content(source)
    for act, words in ((holdfast.export, {"to": "torch"}), (holdfast.import_checkpoint, {})):
        with pytest.raises(ConfigurationError, match="is not written over"):
            act(source, source if link is None else other, force=True, **words)
    assert content(source) == before


def test_the_source_of_an_import_of_tensors_is_not_written_over(source, tmp_path):
    """A shard in a directory is not replaced by the checkpoint that is made of it, with ``force`` neither."""
    holdfast.export(source, tmp_path / "out")
    shard = tmp_path / "out" / "model.safetensors"
    before = content(shard)
    with pytest.raises(ConfigurationError, match="is not written over"):
        holdfast.import_checkpoint(tmp_path / "out", shard, force=True)
    assert content(shard) == before


def test_a_prefix_where_no_name_has_one(tmp_path):
    """Where no name has a prefix at all, the error says so."""
    path = save(tmp_path / "x.ckpt", {"state_dict": {"w": torch.ones(1)}})
    with pytest.raises(ConfigurationError, match="none has a dot in it"):
        holdfast.export(path, tmp_path / "out", strip_prefix="model.")
