"""What the bytes of an upload have to pass: so many a second for all who share a pace, and whoever stops or counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SLICE = 1 << 18  # bytes that are spent at a time, so that those who wait for their turn can be stopped


class Pace:
    """A rate that is kept by waiting. Any number of threads share one: together they keep to it.

    Args:
        rate: bytes per second; None for no limit.
        now: the clock, in seconds; never goes back.
        sleep: waits for seconds.

    Raises:
        ValueError: if the rate is not above 0.

    """

    def __init__(
        self,
        rate: float | None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Owe nothing yet."""
        if rate is not None and not rate > 0:
            msg = f"a pace of {rate!r} bytes per second: it has to be above 0; None is no limit"
            raise ValueError(msg)
        self.rate = rate
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free = now()  # when all that was spent so far is paid for

    def spend(self, size: int) -> None:
        """Wait as long as these bytes take, behind those that others spent before. Unused time is not saved up."""
        if self.rate is None:
            return
        with self._lock:
            now = self._now()
            self._free = max(self._free, now) + size / self.rate
            wait = self._free - now
        self._sleep(wait)


class Path:
    """What the bytes of an upload have to pass: the pace, the one who stops it, the one who counts."""

    def __init__(
        self,
        pace: Pace | None = None,
        stop: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Let everything pass where nothing is given."""
        self._pace = pace or Pace(None)
        self._stop = stop
        self._progress = progress
        self._lock = threading.Lock()
        self._there = self._told = 0

    def wait(self, size: int) -> None:
        """Wait until it is the turn of so many bytes."""
        self.check()
        for at in range(0, size if self._pace.rate is not None else 0, _SLICE):
            self._pace.spend(min(_SLICE, size - at))
            self.check()

    def check(self) -> None:
        """Raise ``InterruptedError`` if it was stopped."""
        if self._stop is not None and self._stop.is_set():
            raise InterruptedError("the upload was stopped")

    def begin(self, size: int) -> None:
        """Say how many bytes are on the server to begin with. What it has forgotten does not count twice."""
        with self._lock:
            self._there = 0
        self.arrived(size)

    def arrived(self, size: int) -> None:
        """Say how many more bytes are on the server."""
        with self._lock:
            self._there += size
            more, self._told = self._there - self._told, max(self._told, self._there)
            if self._progress is not None and more > 0:
                self._progress(more)
