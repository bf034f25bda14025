"""The few threads that writing and copying share."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from holdfast.threads import Threads


@pytest.fixture
def opened():
    """Make threads; none outlives the test."""
    made = []

    def make(count):
        made.append(Threads(count, "holdfast-test"))
        return made[-1]

    yield make
    for threads in made:
        threads.stop()


def living():
    return [thread for thread in threading.enumerate() if thread.name == "holdfast-test"]


def refuse_from(monkeypatch, number):
    """Have the system give that many threads less one."""
    started, real = [], threading.Thread.start

    def start(thread):
        started.append(thread)
        if len(started) >= number:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def test_one_thread_keeps_the_order(opened):
    """Work given to one thread is done in the order it was given, and not by the one who gives it."""
    done = []
    threads = opened(1)
    works = [threads.run(lambda number=number: done.append((number, threading.get_ident()))) for number in range(50)]
    for work in works:
        work.join()
    assert [number for number, _ in done] == list(range(50))
    assert len({who for _, who in done}) == 1
    assert threading.get_ident() not in {who for _, who in done}


def test_as_many_at_a_time_as_there_are_threads(opened):
    """Several threads work beside each other: each waits here for the other."""
    both = threading.Barrier(2)
    threads = opened(2)
    for work in [threads.run(lambda: both.wait(timeout=20)) for _ in range(2)]:
        work.join()
    assert len(living()) == 2


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt(), SystemExit(3)], ids=type)
def test_an_error_comes_out_where_it_is_waited_for(opened, error):
    """What a work raises, of whatever kind, is raised by its join; the thread goes on with the next."""
    threads = opened(1)

    def fail():
        raise error

    work = threads.run(fail)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            work.join()
        assert caught.value is error
    done = []
    threads.run(lambda: done.append(1)).join()
    assert done == [1]


def test_stop_begins_nothing_more(opened):
    """A stop waits for the work that has begun, begins no other, and leaves no thread."""
    begun, go_on, done = threading.Event(), threading.Event(), []
    threads = opened(1)

    def slow():
        begun.set()
        go_on.wait(20)
        done.append("slow")

    threads.run(slow)
    for _ in range(5):
        threads.run(lambda: done.append("later"))
    begun.wait(20)
    timer = threading.Timer(0.05, go_on.set)
    timer.start()
    threads.stop()
    timer.join()
    assert done == ["slow"]
    assert living() == []


def test_stopping_what_never_began_or_has_stopped(opened):
    """Stopping twice, or without any work, is no error and does not wait."""
    threads = opened(3)
    threads.stop()
    threads.stop()
    assert living() == []


@pytest.mark.parametrize("given", [0, 1])
def test_fewer_threads_than_asked_for(opened, monkeypatch, given):
    """Where the system gives fewer threads, or none, all the work is still done, its errors kept for the join."""
    refuse_from(monkeypatch, given + 1)
    threads = opened(2)
    done = []

    def fail():
        raise OSError(5, "broken")

    works = [threads.run(lambda number=number: done.append(number)) for number in range(4)]
    failed = threads.run(fail)
    for work in works:
        work.join()
    assert sorted(done) == [0, 1, 2, 3]
    with pytest.raises(OSError, match="broken"):
        failed.join()
    assert len(living()) == given


AT_THE_END = """
import sys, threading
from holdfast.threads import Threads
def late():
    threading.main_thread().join()
    threads = Threads(2, "late")
    done = []
    for work in [threads.run(lambda number=number: done.append(number)) for number in range(4)]:
        work.join()
    threads.stop()
    sys.stdout.write(repr(sorted(done)))
    sys.stdout.flush()
threading.Thread(target=late).start()
"""


def test_work_while_the_interpreter_shuts_down():
    """After the main thread has ended, when pools take no more work, threads still do theirs."""
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[0, 1, 2, 3]"
