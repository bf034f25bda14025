"""Where the machine's checkpoints live: what can happen there besides saving."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import secrets
import shutil
import tempfile

import fsspec
from fsspec.implementations.memory import MemoryFile

from holdfast.front.opening import checkpoints
from holdfast.notes import FOLDER, known
from holdfast.records import LAST
from holdfast.storage import open_store

PRECIOUS = b"what a user has put there"


class Home:
    """A directory or a URL."""

    shares_last: bool
    locks: bool

    def contents(self):
        """The checkpoints that are listed: ``(path, whether it is last)``."""
        return [(item.path, item.role == LAST) for item in checkpoints(self.root) if item.facts is not None]

    def everything(self):
        """Every file, by its name."""
        store = open_store(self.root)
        names = [blob.name for blob in (*store.blobs(9), *store.hidden(FOLDER))]
        return {name: self.read(store.path(name)) for name in names}

    def said_of(self):
        """The saves of which anything is said."""
        return set(known(open_store(self.root)))


class LocalHome(Home):
    """A directory of this machine."""

    shares_last = locks = True

    def __init__(self):
        self._top = tempfile.mkdtemp(prefix="holdfast-model-")
        self.root = os.path.join(self._top, "run-0")
        self.moves = 0
        os.mkdir(self.root)
        self.write("notes.ckpt", PRECIOUS)

    def write(self, name, data):
        with open(os.path.join(self.root, name), "wb") as file:
            file.write(data)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def overwrite(self, path, data):
        with open(path, "r+b") as file:  # the same inode: all its names see it
            file.write(data)
            file.truncate()

    def move(self):
        self.moves += 1
        there = os.path.join(self._top, f"run-{self.moves}")
        os.rename(self.root, there)
        self.root = there

    @contextlib.contextmanager
    def full(self):
        """The system refuses to write more than some bytes to any file."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def untouched(self):
        return self.read(os.path.join(self.root, "notes.ckpt")) == PRECIOUS

    def leftovers(self):
        return [name for name in os.listdir(self.root) if name.startswith(".holdfast") and name != FOLDER]

    def rename(self, path, other):
        there = os.path.join(self.root, other)
        os.rename(path, there)
        return there

    def close(self):
        shutil.rmtree(self._top)


class MemoryHome(Home):
    """fsspec's filesystem in memory, which has neither locks nor second names."""

    shares_last = locks = False

    def __init__(self):
        self._fs = fsspec.filesystem("memory")
        self._top = f"/model-{secrets.token_hex(4)}"
        self.moves = 0
        self.root = f"memory:/{self._top}/run-0"
        self.write("notes.ckpt", PRECIOUS)

    def write(self, name, data):
        self._fs.pipe_file(f"{self.root}/{name}", data)

    def read(self, path):
        return self._fs.cat_file(path)

    def overwrite(self, path, data):
        self._fs.pipe_file(path, data)

    def move(self):
        self.moves += 1
        there = f"memory:/{self._top}/run-{self.moves}"
        for path in self._fs.find(self.root):
            self._fs.mv(path, f"{there}/{path.partition(f'/run-{self.moves - 1}/')[2]}")
        self.root = there

    @contextlib.contextmanager
    def full(self):
        """The filesystem refuses every write."""
        real = MemoryFile.write

        def refuse(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        MemoryFile.write = refuse
        try:
            yield
        finally:
            MemoryFile.write = real

    def untouched(self):
        return self.read(f"{self.root}/notes.ckpt") == PRECIOUS

    def leftovers(self):
        return [path for path in self._fs.find(self.root) if "/.holdfast" in path and f"/{FOLDER}/" not in path]

    def rename(self, path, other):
        there = f"{self.root}/{other}"
        self._fs.mv(path, there)
        return there

    def close(self):
        self._fs.rm(f"memory:/{self._top}", recursive=True)
