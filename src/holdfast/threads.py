"""A few threads that carry out work in the order it comes.

Not ``concurrent.futures``: its pools take no more work once the interpreter has begun to shut down, and
that is when the last checkpoint may still be on its way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from collections.abc import Callable

_SLICE = 0.25  # seconds


def wait_for(event: threading.Event) -> None:
    """Wait for an event, in slices: a signal that another thread heard, or that came a moment before, is answered.

    Python's handlers run on the main thread, which a wait without a limit holds in the system: only a signal that
    arrives right there interrupts it. One that comes just before lies until the wait is over, and that may
    depend on the signal.
    """
    while not event.wait(_SLICE):
        pass


class Work:
    """One call that a thread makes."""

    def __init__(self, call: Callable[[], None]) -> None:
        """Make the call when asked."""
        self._call = call
        self._error: BaseException | None = None
        self._done = threading.Event()

    def run(self) -> None:
        """Make the call, and keep what it raises for the one who waits."""
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised again by join, on the thread that asked
            self._error = error
        finally:
            self._done.set()

    @property
    def done(self) -> bool:
        """Tell whether the call is over."""
        return self._done.is_set()

    def wait(self) -> None:
        """Wait until the call is over, whatever came of it."""
        wait_for(self._done)

    def join(self) -> None:
        """Wait until the call is over; raise what it raised."""
        self.wait()
        if self._error is not None:
            raise self._error


class Threads:
    """Threads that live until ``stop``. They are started with the work, as many as it needs.

    With ``apart`` they run on other processors than the one that this thread runs on just then: for work
    of a few milliseconds of which this thread does its part.
    """

    def __init__(self, count: int, name: str, *, apart: bool = False) -> None:
        """Start none yet."""
        self._count = count
        self._name = name
        self._apart = apart
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def run(self, call: Callable[[], None]) -> Work:
        """Have a thread make the call; where no thread can be started any more, make it here."""
        work = Work(call)
        if len(self._threads) < self._count and not self._start():
            work.run()
        else:
            self._queue.put(work)
        return work

    def stop(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        self._stopped = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> bool:
        """Start one more thread; tell whether there is any."""
        thread = threading.Thread(target=self._serve, name=self._name)
        try:
            thread.start()
        except RuntimeError:  # out of threads, or the interpreter starts none any more
            return bool(self._threads)
        self._threads.append(thread)
        if self._apart and thread.native_id is not None:
            _send_away(thread.native_id)
        return True

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            if not self._stopped:
                work.run()


def _send_away(thread: int) -> None:
    """Keep a thread off the processor that this one runs on.

    Linux often wakes a thread where the one runs that wakes it, and moves neither for some milliseconds:
    half of a copy of 100 MB would be made by one of two.
    """
    if _processor is None or not hasattr(os, "sched_setaffinity"):
        return
    with contextlib.suppress(OSError):  # not permitted, or the thread is over: then it runs where it runs
        others = os.sched_getaffinity(0) - {_processor()}
        if others:
            os.sched_setaffinity(thread, others)


_processor = getattr(ctypes.CDLL(None), "sched_getcpu", None) if os.name == "posix" else None
