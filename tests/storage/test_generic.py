"""Filesystems of fsspec that are walked from folder to folder: what could not be listed, or asked, is an error."""

from __future__ import annotations

import errno
import secrets

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from holdfast.storage import open_store
from holdfast.storage.remote.generic import FsspecObjects


class Walked(MemoryFileSystem):
    """Like ``sftp://``: it has no listing of its own of everything below a folder, and its line may be cut."""

    protocol = "walked"
    cachable = False
    store, pseudo_dirs = {}, [""]
    bad: OSError | None = None
    find = AbstractFileSystem.find

    def ls(self, path, detail=True, **kwargs):
        if self.bad is not None and path.endswith("/inner"):
            raise self.bad
        return super().ls(path, detail=detail, **kwargs)

    def info(self, path, **kwargs):
        if self.bad is not None:
            raise self.bad
        return super().info(path, **kwargs)


@pytest.fixture
def fs():
    return Walked()


@pytest.fixture
def objects(fs):
    return FsspecObjects(fs)


def folder_of(fs):
    folder = f"/{secrets.token_hex(4)}"
    for name in ("a.ckpt", "inner/b.ckpt", "inner/deeper/c.ckpt"):
        fs.pipe(f"{folder}/{name}", b"12")
    return folder


def test_what_could_not_be_listed_is_not_left_out(fs, objects):
    """A folder whose listing fails is an error, and not a checkpoint less; one that is gone by now is none."""
    folder = folder_of(fs)
    names = [item.key[len(folder) + 1 :] for item in objects.list(f"{folder}/")]
    assert sorted(names) == ["a.ckpt", "inner/b.ckpt", "inner/deeper/c.ckpt"]
    assert [item.key for item in objects.list(f"{folder}/", deep=False)] == [f"{folder}/a.ckpt"]
    fs.bad = OSError(errno.EIO, "the line is cut")
    with pytest.raises(OSError, match="the line is cut"):
        list(objects.list(f"{folder}/"))
    fs.bad = FileNotFoundError(errno.ENOENT, "somebody has removed it")
    assert [item.key for item in objects.list(f"{folder}/")] == [f"{folder}/a.ckpt"]


def test_what_could_not_be_asked_is_not_absent(fs, objects):
    """A put that is to find nothing there fails where the look fails, and what is there stays."""
    folder = folder_of(fs)
    fs.bad = OSError(errno.EIO, "the line is cut")
    with pytest.raises(OSError, match="the line is cut"):
        objects.put(f"{folder}/a.ckpt", b"new", absent=True)
    fs.bad = None
    assert objects.get(f"{folder}/a.ckpt", 0, 9) == b"12"


def test_a_key_that_is_no_name_of_a_file_is_not_listed():
    """A key with a zero or with dots in it, put by somebody, is no blob: one copy of all must not end at it."""
    folder = secrets.token_hex(4)
    memory = MemoryFileSystem()
    for name in ("a.ckpt", "b\0.ckpt", "c/../d.ckpt"):
        memory.store[f"/{folder}/{name}"] = MemoryFile(memory, f"/{folder}/{name}", b"12")
    assert [blob.name for blob in open_store(f"memory://{folder}").blobs(9)] == ["a.ckpt"]
