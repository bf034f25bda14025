"""So many bytes a second, for all who share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


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
