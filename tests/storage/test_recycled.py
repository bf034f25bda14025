"""Blocks of a dropped file for the next one: only when nobody else can have the file by a name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.storage import Blob, open_store
from holdfast.testing.store_suite.material import POOL, aligned
from tests.storage.test_sweep import SWEEPER, started, temporaries

__all__ = ["started"]

RETIRED_AND_DEAD = """
import os, sys
from holdfast.storage import open_store
store = open_store(sys.argv[1])
store.put(sys.argv[2], [b"old"])
store.retire(sys.argv[2])
os._exit(9)
"""

DIES_WRITING_OVER = """
import os, signal, sys
from holdfast.storage import open_store
store = open_store(sys.argv[1])
store.put("old.ckpt", [b"o" * 3_000_000])
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
store.put("x.ckpt", [b"n" * 2_000_000], over=store.retire("old.ckpt"), gate=kill)
"""

WRITES_OVER = """
import sys
from holdfast.storage import open_store
store = open_store(sys.argv[1])
store.put("old.ckpt", [b"o" * 3_000_000])
def gate():
    print("at the gate", flush=True)
    sys.stdin.readline()
store.put("x.ckpt", [b"n" * 2_000_000], over=store.retire("old.ckpt"), gate=gate)
print("done", flush=True)
"""


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "run")


def number_of(store, name):
    return os.stat(store.path(name)).st_ino


def test_the_blocks_are_the_same(store):
    """The new file is the retired one: its blocks need not be found again."""
    store.put("deep/old.ckpt", [POOL])
    before = number_of(store, "deep/old.ckpt")
    store.put("x.ckpt", [aligned(POOL[:99])], over=store.retire("deep/old.ckpt"))
    assert number_of(store, "x.ckpt") == before
    assert store.size("x.ckpt") == 99


def test_a_file_with_a_second_name_is_not_kept(store):
    """Of a file that has a second name only the name is removed; the other one keeps its bytes."""
    store.put("old.ckpt", [POOL])
    store.link("old.ckpt", "last.ckpt")
    assert store.retire("old.ckpt") == ""
    assert store.blobs() == [Blob("last.ckpt", len(POOL))]
    store.put("new.ckpt", [b"new"], over="")
    assert store.read("last.ckpt", 0, len(POOL) + 1) == POOL
    assert temporaries(store.root) == []


def test_a_second_name_that_comes_later(store, tmp_path):
    """A file that gets a second name after it was retired is not written over."""
    store.put("old.ckpt", [POOL])
    over = store.retire("old.ckpt")
    os.link(store.path(over), tmp_path / "backup")
    store.put("new.ckpt", [b"new"], over=over)
    assert (tmp_path / "backup").read_bytes() == POOL
    assert store.read("new.ckpt", 0, 9) == b"new"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_not_written_over(store, tmp_path, kind):
    """If a link, a folder or a pipe stands where a retired file was, it is left alone and nothing waits for it."""
    (tmp_path / "precious").write_bytes(b"precious")
    store.put("old.ckpt", [b"old"])
    over = store.retire("old.ckpt")
    path = store.path(over)
    os.unlink(path)
    make = {"link": lambda: os.symlink(tmp_path / "precious", path), "folder": lambda: os.mkdir(path)}
    make.get(kind, lambda: os.mkfifo(path))()
    store.put("new.ckpt", [b"new"], over=over)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert store.read("new.ckpt", 0, 9) == b"new"


def test_a_symbolic_link_that_is_retired(store, tmp_path):
    """Retiring a symbolic link removes the link; the file behind it is neither kept nor touched."""
    (tmp_path / "precious").write_bytes(b"precious")
    store.put("a.ckpt", [b"1"])
    os.symlink(tmp_path / "precious", store.path("old.ckpt"))
    assert store.retire("old.ckpt") == ""
    assert not store.exists("old.ckpt")
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["x.ckpt", "deep/x.ckpt"])
def test_a_retired_file_whose_process_died(tmp_path, name):
    """What was retired by a process that ended is not listed, and the next run's sweep removes it."""
    done = subprocess.run([sys.executable, "-c", RETIRED_AND_DEAD, tmp_path, name], check=False, timeout=60)
    assert done.returncode == 9
    store = open_store(tmp_path)
    assert len(temporaries(tmp_path)) == 1
    assert store.blobs(depth=1) == []
    assert len(store.sweep(1)) == 1
    assert temporaries(tmp_path) == []


def test_killed_while_writing_over(tmp_path):
    """A process killed with all bytes written over a retired file has committed nothing; its rest is swept."""
    done = subprocess.run([sys.executable, "-c", DIES_WRITING_OVER, tmp_path], check=False, timeout=60)
    assert done.returncode == -9
    store = open_store(tmp_path)
    assert store.blobs() == []
    assert len(store.sweep()) == 1
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_being_written_over_is_not_swept(tmp_path, started):
    """Another process's sweep leaves the retired file alone that a living one is writing over."""
    writer = started(WRITES_OVER, tmp_path)
    store = open_store(tmp_path)
    assert len(temporaries(tmp_path)) == 1
    assert store.sweep() == []
    assert writer.communicate("go\n", timeout=30)[0].strip() == "done"
    assert store.blobs() == [Blob("x.ckpt", 2_000_000)]


def test_writing_over_beside_a_sweeping_process(tmp_path, started):
    """While another process sweeps without a pause, and may take any retired file, no put fails or is torn."""
    started(SWEEPER, tmp_path)
    store = open_store(tmp_path)
    over = ""
    for number in range(150):
        data = b"%d" % number * 700
        store.put(f"{number % 3}.ckpt", [aligned(data)], over=over)
        assert store.read(f"{number % 3}.ckpt", 0, 9999) == data
        over = store.retire(f"{(number + 1) % 3}.ckpt")
    assert len(store.blobs()) == 2


@pytest.mark.parametrize("folder", ["", "deep/"])
def test_a_file_is_not_written_over_while_its_old_name_could_come_back(store, monkeypatch, folder):
    """Before the first byte goes over a retired file, the folder in which it lost its name is synced."""
    store.put(f"{folder}old.ckpt", [POOL])
    calls = []

    def watch(name):
        real = getattr(os, name)

        def call(*arguments):
            shown = os.readlink(f"/proc/self/fd/{arguments[0]}") if isinstance(arguments[0], int) else arguments[0]
            calls.append((name, shown))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "fsync", "pwrite", "write", "ftruncate"):
        watch(name)
    store.put("x.ckpt", [aligned(POOL)], over=store.retire(f"{folder}old.ckpt"))
    names = [name for name, _ in calls]
    first = min(names.index(name) for name in ("pwrite", "write", "ftruncate") if name in names)
    assert names[0] == "rename"
    assert ("fsync", os.path.dirname(store.path(f"{folder}old.ckpt"))) in calls[1:first]
