"""When nobody waits any longer: whoever waits for a server, or to try again, looks here and gives up.

That is so for the whole process after a second Ctrl-C, and for what one thread does when an event is set: that of a
mirror whose run has ended, or of an upload of which another part has failed for good.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator

SLICE = 0.25  # seconds between two looks


class _Own(threading.local):
    """The events that a thread heeds."""

    events: tuple[threading.Event, ...] = ()
    end = math.inf  # when its patience is over, by the monotonic clock


_own = _Own()
_process = {"over": False}  # no event: a signal's handler sets it, which may have interrupted whoever holds its lock


def end_waiting() -> None:
    """Have nothing in this process wait for a server any longer, until ``wait_again``. A signal's handler may do so."""
    _process["over"] = True


def wait_again() -> None:
    """Have servers waited for as usual."""
    _process["over"] = False


@contextlib.contextmanager
def until(*events: threading.Event) -> Iterator[None]:
    """Have this thread give up what it waits for when one of these is set, beside those that it heeds already."""
    before = _own.events
    _own.events = (*before, *events)
    try:
        yield
    finally:
        _own.events = before


@contextlib.contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Have this thread try for so long at most what it tries again meanwhile: whoever asked for it waits no longer."""
    before = _own.end
    _own.end = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _own.end = before


def patience_left() -> float:
    """Return the seconds that are left of it, 0 or more; infinite where there is no limit."""
    return max(0.0, _own.end - time.monotonic())


def heeded() -> tuple[threading.Event, ...]:
    """Return the events that this thread heeds, for the threads that work for it."""
    return _own.events


def is_hurried() -> bool:
    """Tell whether nobody waits any longer for what this thread does."""
    return _process["over"] or any(event.is_set() for event in _own.events)


def pause(seconds: float) -> None:
    """Sleep, no longer than somebody waits."""
    end = time.monotonic() + seconds
    while not is_hurried() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, SLICE))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=wait_again)
