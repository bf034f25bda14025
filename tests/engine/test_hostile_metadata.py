"""Metadata of strangers: whatever the pickle says, nothing of this process changes, hangs or grows."""

import os
import pickle
import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import metadata as classes

import holdfast
from holdfast.dcp import StorageReader, StorageWriter
from holdfast.engine import load_sharded, read_metadata, read_sharded
from holdfast.engine.sharded import reading
from holdfast.errors import DamagedCheckpointError, LoadError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")
DEEP = 60


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def doubled(first, make):
    """What holds itself twice, and that twice, and so on: each step is a few bytes, and doubles the whole."""
    data = first + b"q\x00"
    for at in range(DEEP):
        data += make(b"h" + bytes([at]) + b"h" + bytes([at])) + b"q" + bytes([at + 1])
    return data


CLASS = named("torch.distributed.checkpoint.metadata", "Metadata")
FORMAT = named("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING") + b"K\x00\x85R"
PATH = named("pathlib", "PosixPath")
LONG = classes.TensorStorageMetadata(classes.TensorProperties(), torch.Size([2**62] * 100_000), [])
CHUNK = named("torch.distributed.checkpoint.metadata", "MetadataIndex") + b")\x81}(" + text("fqn") + text("w")
EVIL = {
    "attributes of a class": CLASS + b"N}" + text("evil") + b"K\x01s\x86b",
    "value of a constant": FORMAT + b"}" + text("_value_") + b"K\x07sb",
    "attributes of a function": PATH + b"}" + text("evil") + b"K\x01sb",
    "a text that doubles": doubled(text("x" * 50), lambda two: PATH + two + b"\x86R"),
    "a list that doubles": doubled(b"]", lambda two: b"](" + two + b"e"),
    "a key that doubles": b"}" + doubled(b")", lambda two: two + b"\x86") + b"Ns",
    "an index that doubles": b"}" + CHUNK + text("offset") + doubled(b")", lambda two: two + b"\x86") + b"ubNs",
    "a size of many dimensions": pickle.dumps(dcp.Metadata({"w": LONG}, None, {}), 2)[2:-1],
    "a place in the memo": b"Nr\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("data", EVIL.values(), ids=EVIL)
def test_a_pickle_changes_nothing_and_ends_soon(tmp_path, data):
    """DCP's classes stay as they are, and a few hundred bytes take neither all memory nor for ever."""
    (tmp_path / ".metadata").write_bytes(b"\x80\x04" + data + b".")
    with pytest.raises(DamagedCheckpointError) as error:
        read_metadata(tmp_path)
    assert len(str(error.value)) < 1000
    assert not hasattr(classes.Metadata, "evil")
    assert [item.value for item in classes._MEM_FORMAT_ENCODING] == [0, 1, 2]


@pytest.mark.parametrize(
    "paths",
    [
        {"w": ("w",), "w.x": ("w", "x"), "b": ("b",)},
        {"w": ("w",), "w.x": ("w",), "b": ("w",)},
        {"w": ("other",), "w.x": ("w", "x"), "b": ("b",)},
        {"q.0": ("q", 0), "q.z": ("q", "z")},
        {f"r.{2**24 - 1}.{2**24 - 1}": ("r", 2**24 - 1, 2**24 - 1)},
    ],
    ids=["within a value", "one place for three", "elsewhere", "a list with names", "far out in a list"],
)
def test_names_that_no_state_has_are_damage(tmp_path, paths):
    """Names and places that contradict each other are refused, whatever loads or exports them; no list grows huge."""
    state = {name: torch.ones(3) for name in paths}
    dcp.save(state, storage_writer=dcp.FileSystemWriter(tmp_path / "x"))
    known = pickle.loads((tmp_path / "x/.metadata").read_bytes())  # noqa: S301 - the line above wrote it
    known.planner_data = paths
    (tmp_path / "x/.metadata").write_bytes(pickle.dumps(known))
    for use in (holdfast.load, lambda path: holdfast.export(path, tmp_path / "out.ckpt")):
        with pytest.raises(DamagedCheckpointError, match="the metadata"):
            use(tmp_path / "x")


def test_parts_that_are_not_all_are_damage(tmp_path):
    """A tensor of which a rank did not save its part is not loaded with whatever the memory held."""
    dcp.save({"w": torch.ones(4)}, storage_writer=dcp.FileSystemWriter(tmp_path / "x"))
    known = pickle.loads((tmp_path / "x/.metadata").read_bytes())  # noqa: S301 - the line above wrote it
    known.state_dict_metadata["w"].size = torch.Size([6])
    (tmp_path / "x/.metadata").write_bytes(pickle.dumps(known))
    for use in (
        load_sharded,
        lambda path: read_sharded(path, {"w": torch.zeros(6)}),
        lambda path: holdfast.export(path, tmp_path / "out.ckpt"),
    ):
        with pytest.raises(DamagedCheckpointError, match="4 elements, and it has 6"):
            use(tmp_path / "x")


def test_lists_of_tensors_and_values_come_back(tmp_path):
    """A list with tensors, or with values beside them, is loaded as it was saved."""
    state = {"a": [torch.ones(3), 5], "b": [torch.ones(2), torch.zeros(2)], "c": [[torch.ones(1)], [1, 2]]}
    dcp.save(state, storage_writer=StorageWriter(tmp_path / "x.ckpt"))
    holdfast.export(tmp_path / "x.ckpt", tmp_path / "one.ckpt", optimizer=True)
    for path in (tmp_path / "x.ckpt", tmp_path / "one.ckpt"):
        assert str(holdfast.load(path)) == str(state)


@pytest.fixture
def replaced(tmp_path, monkeypatch):
    """A checkpoint that is replaced, and the old one removed, when the first of its files is about to be read."""
    for name, value in (("x.ckpt", 1.0), ("y.ckpt", 2.0)):
        dcp.save({"w": torch.full((5,), value), "n": value}, storage_writer=StorageWriter(tmp_path / name))
    opened = reading.Resting.opened

    def late(self, name):
        if name.endswith(".distcp") and os.path.exists(tmp_path / "y.ckpt"):
            os.rename(tmp_path / "x.ckpt", tmp_path / "old")
            os.rename(tmp_path / "y.ckpt", tmp_path / "x.ckpt")
            shutil.rmtree(tmp_path / "old")
        return opened(self, name)

    monkeypatch.setattr(reading.Resting, "opened", late)
    return tmp_path / "x.ckpt"


def test_what_is_replaced_while_it_is_read_is_no_damage(replaced):
    """Where another checkpoint takes the name of the one that is read, the other one is loaded, all of it."""
    state = {"w": torch.zeros(5), "n": 0.0}
    read_sharded(replaced, state)
    assert str(state) == str({"w": torch.full((5,), 2.0), "n": 2.0})


def test_what_is_replaced_under_dcp_is_no_damage(replaced):
    """Under ``dcp.load``, which cannot begin again, the error says what happened; the next load loads the other one."""
    state = {"w": torch.zeros(5), "n": 0.0}
    with pytest.raises(dcp.api.CheckpointException) as error:
        dcp.load(state, storage_reader=StorageReader(replaced))
    (cause,) = error.value.failures.values()
    assert type(cause[0]) is LoadError
    assert "was replaced or removed while it was read" in str(cause[0])
    dcp.load(state, storage_reader=StorageReader(replaced))
    assert state["n"] == 2.0


def test_what_is_replaced_while_it_is_exported_is_no_damage(replaced, tmp_path):
    """An export says what happened as well, leaves nothing, and does it when asked again."""
    with pytest.raises(LoadError, match="was replaced or removed while it was read") as error:
        holdfast.export(replaced, tmp_path / "one.ckpt")
    assert type(error.value) is LoadError
    assert sorted(os.listdir(tmp_path)) == ["x.ckpt"]
    holdfast.export(replaced, tmp_path / "one.ckpt", optimizer=True)
    assert holdfast.load(tmp_path / "one.ckpt")["n"] == 2.0
