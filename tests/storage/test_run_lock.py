"""One run, one directory: a second process is refused, and a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from holdfast import DirectoryInUseError
from holdfast.storage import RUN_LOCK, open_store, own_directory, run_lock
from tests.support.running import PYTHONPATH

OWNER = """
import os, sys, time
from holdfast import DirectoryInUseError
from holdfast.storage import own_directory
workers, slow = int(sys.argv[2]), float(sys.argv[3])
if slow:  # a child whose first act after the fork comes late, as on a busy machine
    parent, close = os.getpid(), os.close
    os.close = lambda descriptor: (os.getpid() != parent and time.sleep(slow), close(descriptor))
try:
    own = own_directory(sys.argv[1], run="theirs", since="today")
except DirectoryInUseError as error:
    print("refused", error.pid, flush=True)
    sys.exit(0)
children = []
for _ in range(workers):
    child = os.fork()
    if not child:
        time.sleep(600)
    children.append(child)
print("owns", os.getpid(), *children, flush=True)
sys.stdin.readline()
own.give_up()
"""


@pytest.fixture
def start():
    """Start processes that take a directory; none outlives the test."""
    processes = []

    def begin(folder, workers=0, slow=0.0):
        command = [sys.executable, "-c", OWNER, str(folder), str(workers), str(slow)]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def owned(folder):
    return own_directory(str(folder), run="mine", since="2026-01-01T00:00:00+00:00")


def test_a_second_process_is_told_who_has_it(tmp_path, start):
    """The error names the run, the host, the process and the time; reading needs no lock, and nothing is listed."""
    first = start(tmp_path)
    pid = first.stdout.readline().split()[1]
    with pytest.raises(
        DirectoryInUseError, match=rf"another run theirs.*process {pid} on host .*, since today"
    ) as told:
        owned(tmp_path)
    assert (told.value.pid, told.value.path) == (pid, os.path.realpath(tmp_path))
    assert open_store(tmp_path).blobs() == []
    first.communicate("\n")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("slow", [0.0, 0.3])
def test_a_killed_owner_holds_nothing(tmp_path, start, slow):
    """After SIGKILL the directory is free, though the dead run's file and its workers are there, forked only just."""
    first = start(tmp_path, workers=2, slow=slow)
    _, pid, *workers = map(str, first.stdout.readline().split())
    os.kill(int(pid), signal.SIGKILL)
    first.wait()
    try:
        assert os.listdir(tmp_path) == [RUN_LOCK]
        own = owned(tmp_path)
        for worker in workers:
            os.kill(int(worker), 0)  # it is alive
    finally:
        for worker in workers:
            os.kill(int(worker), signal.SIGKILL)
    own.give_up()
    assert os.listdir(tmp_path) == []


def test_of_many_starters_one_wins(tmp_path, start):
    """However many begin at once, over a dead run's file: one has the directory, and all others name it."""
    (tmp_path / RUN_LOCK).write_text("{}")
    started = [start(tmp_path) for _ in range(6)]
    answers = [process.stdout.readline().split() for process in started]
    winners = [pid for word, pid, *_ in answers if word == "owns"]
    assert len(winners) == 1
    assert {pid for word, pid, *_ in answers if word == "refused"} == set(winners)


def test_those_of_one_process_share_it(tmp_path):
    """Several owners in one process, by whatever path, are one; the last to give up removes the file."""
    (tmp_path / "other").symlink_to(tmp_path)
    first, second = owned(tmp_path), owned(tmp_path / "other")
    first.give_up()
    first.give_up()
    assert os.path.exists(tmp_path / RUN_LOCK)
    with open(tmp_path / RUN_LOCK) as file:  # to read it and close it gives nothing up
        assert '"run": "mine"' in file.read()
    second.give_up()
    assert os.listdir(tmp_path) == ["other"]


def test_a_forked_child_neither_has_nor_gives_up(tmp_path, start):
    """What a child does with its parent's ownership changes nothing, and the directory is not the child's."""
    own = owned(tmp_path)
    child = os.fork()
    if not child:
        own.give_up()
        try:
            owned(tmp_path)
        except DirectoryInUseError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert start(tmp_path).stdout.readline().split()[0] == "refused"
    own.give_up()


def test_folders_that_were_made_for_it_go_if_empty(tmp_path):
    """A run that saves nothing leaves nothing; what else lies there stays."""
    owned(tmp_path / "a" / "b").give_up()
    assert os.listdir(tmp_path) == []
    own = owned(tmp_path / "a" / "b")
    (tmp_path / "a" / "x").write_text("x")
    own.give_up()
    assert os.listdir(tmp_path / "a") == ["x"]


def test_where_no_file_can_be_made(tmp_path):
    """A directory that cannot be made is not owned, and is no error: the first save will say why."""
    (tmp_path / "file").write_text("in the way")
    assert owned(tmp_path / "file" / "d") is None


def test_where_there_are_no_locks(tmp_path, monkeypatch):
    """A filesystem without locks is warned of, once, and training goes on."""
    import errno

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks") as told:
        assert owned(tmp_path) is owned(tmp_path) is None
    assert len(told) == 1
