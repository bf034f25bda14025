"""Time is a value handed in. ``FakeClock`` is public, for the tests of those who build on this."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Where holdfast takes the time from."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards, from an arbitrary start."""
        ...

    def now(self) -> datetime:
        """Return the wall time, aware of its zone."""
        ...


@dataclass(frozen=True)
class SystemClock:
    """The time of this machine."""

    def monotonic(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the wall time in UTC."""
        return datetime.now(timezone.utc)


@dataclass
class FakeClock:
    """A clock that stands still until it is told to advance.

    Attributes:
        seconds: what ``monotonic`` returns, and the seconds since 2000-01-01 of ``now``.

    """

    seconds: float = 0.0

    def advance(self, seconds: float) -> None:
        """Move the clock forward by this many seconds."""
        self.seconds += seconds

    def monotonic(self) -> float:
        """Return the seconds told so far."""
        return self.seconds

    def now(self) -> datetime:
        """Return 2000-01-01 UTC plus the seconds told so far."""
        start = datetime(2000, 1, 1, tzinfo=timezone.utc).timestamp()
        return datetime.fromtimestamp(start + self.seconds, tz=timezone.utc)
