"""``holdfast.dcp`` under torch's own ``dcp.save`` and ``dcp.load``, and what DCP's own storage does not hold."""

import contextlib
import errno
import os
import pathlib
import pickle
import random
import stat
import threading
import warnings

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem

from holdfast import catalog, verify
from holdfast.dcp import StorageReader, StorageWriter
from holdfast.engine import read_metadata
from holdfast.errors import ConfigurationError, DamagedCheckpointError, LoadError, UnsafeCheckpointError
from holdfast.storage import blocks
from tests.support.shards import shard_of


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is")
        yield


def state_of(value=1.0):
    return {"w": torch.full((300, 301), value), "n": {"lr": value}, "b": torch.full((3,), value).bfloat16()}


def same(one, other):
    return one["n"] == other["n"] and all(torch.equal(one[key], other[key]) for key in ("w", "b"))


def test_what_the_writer_writes_both_readers_read(tmp_path):
    """A save through DCP's own front door is a checkpoint that is listed and verified, and that plain DCP reads."""
    path = tmp_path / "a.ckpt"
    dcp.save(state_of(), storage_writer=StorageWriter(path, step=7, metrics={"loss": 0.5}))
    assert os.listdir(tmp_path) == ["a.ckpt"]
    verify(path)
    (found,) = catalog(tmp_path)
    assert (found.step, found.metrics) == (7, {"loss": 0.5})
    for reader in (StorageReader(path), FileSystemReader(path)):
        into = state_of(0.0)
        dcp.load(into, storage_reader=reader)
        assert same(into, state_of())


def test_an_asynchronous_save_is_committed_when_its_future_is_done(tmp_path):
    """``dcp.async_save`` with the same writer again and again, over the same name: each time the newest is there."""
    writer = StorageWriter(tmp_path / "a.ckpt")
    for value in (1.0, 2.0):
        future = dcp.async_save(state_of(value), storage_writer=writer)
        getattr(future, "upload_completion", future).result()
        into = state_of(0.0)
        dcp.load(into, storage_reader=StorageReader(tmp_path / "a.ckpt"))
        assert same(into, state_of(value))
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_the_reader_reads_what_plain_dcp_wrote(tmp_path):
    """A directory without a manifest loads as well."""
    dcp.save(state_of(), checkpoint_id=tmp_path / "plain")
    into = state_of(0.0)
    dcp.load(into, storage_reader=StorageReader(tmp_path / "plain"))
    assert same(into, state_of())


def test_what_cannot_be_committed_as_one_is_refused(tmp_path):
    """Saving without collectives is an error that says so."""
    with pytest.raises((ConfigurationError, CheckpointException), match="use_collectives"):
        dcp.save(state_of(), storage_writer=StorageWriter(tmp_path / "a"), use_collectives=False)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"path": ".holdfast-0.tmp"}, "hidden"),
        ({"path": ".holdfast-0.tmp/a.ckpt"}, "hidden"),
        ({"step": "7"}, "`step`.*'7'"),
        ({"epoch": -1}, "`epoch`.*-1"),
        ({"metrics": {"loss": "low"}}, "`metrics`.*'low'"),
        ({"metrics": {"loss": torch.ones(3)}}, "`metrics`.*loss"),
    ],
    ids=str,
)
def test_what_would_not_be_found_again_is_refused(tmp_path, arguments, word):
    """A name that a sweep removes, and numbers that no manifest has, are refused before anything is written."""
    path = tmp_path / arguments.get("path", "a.ckpt")
    with pytest.raises(ConfigurationError, match=word):
        StorageWriter(path, **{name: value for name, value in arguments.items() if name != "path"})
    assert os.listdir(tmp_path) == []


def test_a_sparse_tensor_is_refused_by_its_name(tmp_path):
    """DCP cannot load one: it is not committed, and the error says which it is."""
    with pytest.raises(CheckpointException, match="eye is a sparse tensor"):
        dcp.save({"eye": torch.eye(3).to_sparse()}, storage_writer=StorageWriter(tmp_path / "a.ckpt"))
    assert os.listdir(tmp_path) == []


def test_every_byte_that_is_loaded_is_checked(tmp_path):
    """A flipped byte of a tensor, which plain DCP loads without a word, is refused, and named."""
    path = tmp_path / "a.ckpt"
    dcp.save(state_of(), storage_writer=StorageWriter(path))
    shard = pathlib.Path(shard_of(path, 0))
    data = bytearray(shard.read_bytes())
    data[100_000] ^= 1
    shard.write_bytes(data)
    into = state_of(0.0)
    dcp.load(into, storage_reader=FileSystemReader(path))
    assert not same(into, state_of())
    with pytest.raises(CheckpointException, match=r"__0_0\.holdfast-\w+\.distcp is damaged: w: its CRC-32"):
        dcp.load(state_of(0.0), storage_reader=StorageReader(path))


def _sizes_at_fsync(monkeypatch, save):
    """Return the bytes that each file had when it was fsynced, and those it has after the save, by its number."""
    known = {}
    real = os.fsync

    def fsync(descriptor):
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            known[status.st_ino] = status.st_size
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    save()
    monkeypatch.undo()
    return known


def _sizes(path):
    return {os.stat(path / name).st_ino: os.path.getsize(path / name) for name in os.listdir(path)}


def test_the_metadata_are_whole_when_they_are_fsynced(tmp_path, monkeypatch):
    """DCP's own writer fsyncs its metadata while they are still empty; ours every file with all its bytes."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    synced = _sizes_at_fsync(monkeypatch, lambda: dcp.save(state_of(), checkpoint_id=theirs))
    number = os.stat(theirs / ".metadata").st_ino
    assert synced[number] == 0 < os.path.getsize(theirs / ".metadata")
    synced = _sizes_at_fsync(monkeypatch, lambda: dcp.save(state_of(), storage_writer=StorageWriter(ours)))
    assert synced == _sizes(ours)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_under_one_of_several_threads_is_not_lost(tmp_path, monkeypatch):
    """DCP's own writer commits a checkpoint of which a thread wrote nothing; ours raises, and leaves nothing."""
    came, real = threading.Event(), FileSystem.create_stream

    @contextlib.contextmanager
    def create_stream(self, path, mode):
        if mode == "wb" and threading.current_thread() is not threading.main_thread():
            came.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if mode == "wb" and str(path).endswith(".distcp"):
            came.wait(10)
        with real(self, path, mode) as stream:
            yield stream

    monkeypatch.setattr(FileSystem, "create_stream", create_stream)
    theirs = tmp_path / "theirs"
    dcp.save(state_of(), storage_writer=FileSystemWriter(theirs, thread_count=2))
    monkeypatch.undo()
    assert (theirs / ".metadata").exists()
    with pytest.raises(CheckpointException):
        dcp.load(state_of(0.0), checkpoint_id=theirs)

    def full(*_):
        assert threading.current_thread() is not threading.main_thread()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(blocks, "_write_direct", full)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(CheckpointException, match="No space left"):
        dcp.save({"w": torch.zeros(3_000_000)}, storage_writer=StorageWriter(tmp_path / "ours"))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["theirs"]


class _Evil:
    def __init__(self, command, *arguments):
        self.call = command, arguments

    def __reduce__(self):
        return self.call


def test_metadata_run_no_code(tmp_path):
    """DCP's own reader runs what is in ``.metadata``; ours refuses, and names what it asked for."""
    dcp.save(state_of(), checkpoint_id=tmp_path / "x")
    mark = tmp_path / "mark"
    (tmp_path / "x/.metadata").write_bytes(pickle.dumps(_Evil(os.mkdir, str(mark))))
    with pytest.raises(CheckpointException):
        dcp.load(state_of(0.0), checkpoint_id=tmp_path / "x")
    assert mark.exists()
    mark.rmdir()
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.mkdir"):
        read_metadata(tmp_path / "x")
    with pytest.raises(CheckpointException, match=r"posix\.mkdir"):
        dcp.load(state_of(0.0), storage_reader=StorageReader(tmp_path / "x"))
    assert not mark.exists()


def test_values_run_no_code(tmp_path):
    """DCP's own reader runs what is in a value; ours does so only where it was told to."""
    mark = tmp_path / "mark"
    state = {"w": torch.ones(3), "v": _Evil(os.mkdir, str(mark))}
    for writer in (StorageWriter(tmp_path / "x"), FileSystemWriter(tmp_path / "y")):
        dcp.save(state, storage_writer=writer)
    for name in ("x", "y"):
        with pytest.raises(CheckpointException, match=r"v needs posix\.mkdir"):
            dcp.load({"w": torch.ones(3), "v": 0}, storage_reader=StorageReader(tmp_path / name))
        assert not mark.exists()
        dcp.load({"w": torch.ones(3), "v": 0}, storage_reader=StorageReader(tmp_path / name, allow_unsafe=True))
        mark.rmdir()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04.",
        b"\x80\x04" + b"(" * 100_000,
        b"\x80\x04Nr\xff\xff\xff\x7f.",  # a memo of two billion places
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fx.",
        b"\x80\x04\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # a bytearray of 64 GB
        b"\x80\x04\x82\x01.",  # an extension code
        b"I" + b"9" * 100_000 + b"\n.",
        pickle.dumps([1, 2]),
        pickle.dumps(dcp.Metadata({"x": 3})),
        pickle.dumps(dcp.Metadata({}, None, {3: 4})),
        pickle.dumps(dcp.Metadata({}, {"x": ("x", 2**40)}, {})),
    ],
)
def test_metadata_of_no_form_are_refused(tmp_path, data):
    """Pickles that would take all memory, or that hold something else, are a LoadError, and quickly."""
    (tmp_path / ".metadata").write_bytes(data)
    with pytest.raises((DamagedCheckpointError, UnsafeCheckpointError)):
        read_metadata(tmp_path)


def test_metadata_with_a_file_outside_are_refused(tmp_path):
    """No name in a checkpoint leads out of its directory."""
    dcp.save(state_of(), checkpoint_id=tmp_path / "x")
    known = read_metadata(tmp_path / "x")
    for place in known.storage_data.values():
        place.relative_path = "../secret"
    (tmp_path / "x/.metadata").write_bytes(pickle.dumps(known))
    with pytest.raises(DamagedCheckpointError, match=r"\.\./secret"):
        read_metadata(tmp_path / "x")


def test_flipped_bits_of_plain_metadata_never_give_another_error(tmp_path):
    """Without a manifest damage cannot always be seen; what is seen is a LoadError, and nothing else comes of it."""
    path = tmp_path / "x"
    dcp.save(state_of(), checkpoint_id=path)
    whole = (path / ".metadata").read_bytes()
    draw = random.Random(6)  # noqa: S311 - a seeded draw
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        (path / ".metadata").write_bytes(data[: draw.choice((len(data), draw.randrange(len(data))))])
        try:
            read_metadata(path)
        except LoadError:
            refused += 1
    assert refused > 200
