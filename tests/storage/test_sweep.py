"""What a dead writer left is swept; what a living one is writing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from holdfast.storage import open_store

WRITER = """
import sys, time
from holdfast.storage import open_store
def chunks():
    yield b"half"
    print("writing", flush=True)
    sys.stdin.readline()
    yield b" and half"
open_store(sys.argv[1]).put(sys.argv[2], chunks())
print("done", flush=True)
"""

SWEEPER = """
import sys
from holdfast.storage import open_store
store = open_store(sys.argv[1])
print("sweeping", flush=True)
while True:
    store.sweep(1)
"""


@pytest.fixture
def started():
    """Start processes; none outlives the test."""
    processes = []

    def start(source, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def temporaries(folder):
    return [name for _, _, files in os.walk(folder) for name in files if name.startswith(".holdfast-")]


@pytest.mark.parametrize("name", ["x.ckpt", "deep/x.ckpt"])
def test_a_living_writer_is_left_alone(tmp_path, started, name):
    """A temporary that another living process is writing is not swept, and its put completes."""
    store = open_store(tmp_path)
    writer = started(WRITER, tmp_path, name)
    assert len(temporaries(tmp_path)) == 1
    assert store.sweep(1) == []
    out, _ = writer.communicate("go\n", timeout=30)
    assert out.strip() == "done"
    assert store.read(name, 0, 99) == b"half and half"
    assert temporaries(tmp_path) == []


def test_a_stopped_writer_is_still_alive(tmp_path, started):
    """A writer that is merely stopped (Ctrl-Z, a debugger) keeps its temporary."""
    store = open_store(tmp_path)
    writer = started(WRITER, tmp_path, "x.ckpt")
    os.kill(writer.pid, signal.SIGSTOP)
    assert store.sweep(1) == []
    os.kill(writer.pid, signal.SIGCONT)
    assert writer.communicate("go\n", timeout=30)[0].strip() == "done"


@pytest.mark.parametrize("name", ["x.ckpt", "deep/x.ckpt"])
def test_a_dead_writers_rest_is_swept(tmp_path, started, name):
    """What a killed process left is removed by the next sweep that goes so deep, and named by it."""
    store = open_store(tmp_path)
    writer = started(WRITER, tmp_path, name)
    writer.kill()
    writer.wait()
    (left,) = temporaries(tmp_path)
    assert store.blobs(depth=1) == []
    if "/" in name:
        assert store.sweep(0) == []
    assert [swept.rpartition("/")[2] for swept in store.sweep(1)] == [left]
    assert temporaries(tmp_path) == []
    assert store.sweep(1) == []


def test_only_our_temporaries_are_swept(tmp_path):
    """Files of others, hidden or alike in name, stay."""
    names = {".holdfast-notes", "holdfast-1.tmp", ".other-1.tmp", ".holdfast-1.tmp.ckpt", "x.tmp", ".hidden"}
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    assert open_store(tmp_path).sweep(2) == []
    assert set(os.listdir(tmp_path)) == names


def test_saving_and_linking_beside_sweeping_processes(tmp_path, started):
    """While two other processes sweep without a pause, no put and no link of this one fails."""
    for _ in range(2):
        started(SWEEPER, tmp_path)
    store = open_store(tmp_path)
    end = time.monotonic() + 2
    rounds = 0
    while time.monotonic() < end or rounds < 50:
        data = b"%d" % rounds
        store.put("x.ckpt", [data])
        store.link("x.ckpt", "y.ckpt")
        assert store.read("y.ckpt", 0, 99) == data
        rounds += 1
    assert sorted(name for name in os.listdir(tmp_path) if not name.startswith(".")) == ["x.ckpt", "y.ckpt"]


def test_two_writers_of_one_name(tmp_path, started):
    """Of two processes that put the same name, each commits whole, and the later one stays."""
    store = open_store(tmp_path)
    writer = started(WRITER, tmp_path, "x.ckpt")
    store.put("x.ckpt", [b"mine"])
    assert store.read("x.ckpt", 0, 99) == b"mine"
    writer.communicate("go\n", timeout=30)
    assert store.read("x.ckpt", 0, 99) == b"half and half"
