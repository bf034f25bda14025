"""Known faults of torch.distributed.checkpoint's own writer and reader, each shown there, and that ours has it not."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from contextlib import contextmanager

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.api import CheckpointException

STATE = {"weight": torch.arange(1000.0), "bias": torch.ones(10), "step": 7}
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def synced(monkeypatch):
    """How many bytes each file had, by its number, when it was last made durable."""
    sizes = {}
    real = os.fsync

    def fsync(descriptor):
        status = os.fstat(descriptor)
        sizes[status.st_ino] = status.st_size
        return real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


class FullDisk(filesystem.FileSystem):
    """A disk on which there is no room for one of the files."""

    @contextmanager
    def create_stream(self, path, mode):
        if os.fspath(path).endswith("__0_1.distcp"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        with super().create_stream(path, mode) as stream:
            yield stream


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def theirs(path, **words):
    dcp.save(dict(STATE), storage_writer=dcp.FileSystemWriter(path, **words), no_dist=True)


def test_theirs_makes_its_metadata_durable_while_it_is_empty(tmp_path, synced):
    """After dcp.save has said that all is on the disk, a power cut may leave a .metadata of no bytes."""
    theirs(tmp_path / "x", sync_files=True)
    status = os.stat(tmp_path / "x" / ".metadata")
    assert status.st_size > 0
    assert synced[status.st_ino] == 0


def test_theirs_commits_though_a_thread_could_not_write(tmp_path, monkeypatch):
    """With two threads, dcp.save returns as if all were well, and its checkpoint cannot be loaded."""
    lost = []
    monkeypatch.setattr(threading, "excepthook", lambda what: lost.append(what.exc_value))
    ready = threading.Event()
    real = filesystem._write_files_from_queue

    def write(*arguments, **words):  # the one that fails is not the calling thread: it comes when that one has begun
        if threading.current_thread() is threading.main_thread():
            files = words["file_queue"]
            first = files.get_nowait()
            rest = [files.get_nowait() for _ in range(files.qsize())]
            for item in sorted([first, *rest], key=lambda item: not str(item[0]).endswith("__0_1.distcp")):
                files.put(item)
            ready.set()
            while files.qsize() == len(rest) + 1:
                pass
        else:
            ready.wait(10)
        return real(*arguments, **words)

    monkeypatch.setattr(filesystem, "_write_files_from_queue", write)
    writer = dcp.FileSystemWriter(tmp_path / "x", thread_count=2)
    writer.fs = FullDisk()
    dcp.save(dict(STATE), storage_writer=writer, no_dist=True)
    assert [error.errno for error in lost] == [errno.ENOSPC]
    assert os.path.exists(tmp_path / "x" / ".metadata")
    with pytest.raises(CheckpointException, match="KeyError"):
        dcp.load({"weight": torch.zeros(1000), "bias": torch.zeros(10), "step": 0}, checkpoint_id=tmp_path / "x")


def test_theirs_runs_what_the_metadata_says(tmp_path):
    """dcp.load unpickles .metadata whatever is in it."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".metadata").write_bytes(pickle.dumps(Evil(str(tmp_path / "ran"))))
    with pytest.raises(CheckpointException):
        dcp.load(dict(STATE), checkpoint_id=tmp_path / "x", no_dist=True)
    assert (tmp_path / "ran").is_dir()
