"""How much time a run has left: its deadline, and what a signal leaves of it, beside how long its saves take."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from numbers import Real
from typing import Any, Final, TypeVar

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError
from holdfast.policy import haste

T = TypeVar("T")

AUTO: Final = "auto"
ENDS: Final = "SLURM_JOB_END_TIME"  # seconds since 1970, in the environment of a job
_RECENT = 5
_FADING = 0.98  # of a slow step, at each later one: a long pause counts for a while


@dataclass
class Remaining:
    """How much time is left. What is asked of it counts on rank 0 alone.

    Attributes:
        grace: seconds between a signal and the end; None if nobody said.
        at: the deadline by the clock's ``monotonic``, until the save ahead of it is made; None without one. On every
            rank alike.
        clock: where the time comes from.

    """

    grace: float | None
    at: float | None
    clock: Clock
    _saves: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _size: int = 0
    _asked: float | None = None
    _between: float = 0.0
    _told: bool = False

    def share(self, agree: Callable[[Callable[[], float | None]], float | None]) -> None:
        """Take rank 0's deadline: an environment may differ, and clocks do."""
        self.at = agree(lambda: self.at)

    def assume(self, size: int) -> None:
        """Say how many bytes a save has: as good as it gets before one is measured."""
        self._size = size

    def learn(self, seconds: float) -> str:
        """Take note of how long a save took, from its order to its commit; return what there is to warn of, or ""."""
        if seconds > 0:
            self._saves.append(seconds)
        if self._told or self.grace is None or not haste.too_short(self.grace, self._saves):
            return ""
        self._told = True
        return (
            f"a save takes {max(self._saves):.3g} s, and `grace_period` says that {self.grace:g} s are left after a "
            "signal: what is saved then may not be committed in time. Have the scheduler send its signal earlier, give "
            "a `deadline`, or save often enough without"
        )

    def is_due(self, between: float = 0.0) -> bool:
        """Tell whether the save ahead of the deadline has to begin now. Cheap.

        Args:
            between: seconds of training until this is asked again. What it took lately counts as well.

        """
        if self.at is None:
            return False
        now = self.clock.monotonic()
        since = now - self._asked if self._asked is not None else 0.0
        self._asked, self._between = now, max(since, self._between * _FADING)
        return haste.due(self.at - now, self._saves, self._size, max(between, self._between))

    def done(self) -> None:
        """No save ahead of the deadline is needed any more. Call it on every rank."""
        self.at = None

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return math.inf if self.at is None else self.at - self.clock.monotonic()

    @property
    def took(self) -> tuple[float, ...]:
        """Seconds that the recent saves took, each from its order to its commit."""
        return tuple(self._saves)

    def limit(self) -> float:
        """Return how many seconds of training may go by between two talks of several ranks."""
        return math.inf if self.grace is None else haste.room(self.grace, self._saves, self._size)


def make_remaining(grace_period: object, deadline: object, clock: Clock) -> Remaining:
    """Check the words, and return what they say.

    Args:
        grace_period: seconds or a ``timedelta``; None.
        deadline: a ``datetime`` (without a zone: this machine's), a ``timedelta`` or seconds from now, ``"auto"``: the
            end of the SLURM job where there is one; None.
        clock: where the time comes from.

    Raises:
        ConfigurationError: for one that cannot be meant.

    """
    grace = None if grace_period is None else _seconds("grace_period", grace_period)
    left = _left(deadline, clock)
    return Remaining(grace, None if left is None else clock.monotonic() + left, clock)


def _left(deadline: Any, clock: Clock) -> float | None:
    """Return the seconds until the deadline."""
    if deadline is None:
        return None
    if isinstance(deadline, str):
        if deadline != AUTO:
            raise ConfigurationError(_wrong("deadline", deadline))
        return _left_of_job(clock)
    if not isinstance(deadline, datetime):
        return _seconds("deadline", deadline)
    left = (deadline.astimezone() - clock.now()).total_seconds()
    if left > 0:
        return left
    msg = f"`deadline` is over already: {deadline.isoformat()} was {-left:.0f} s ago"
    raise ConfigurationError(msg)


def _left_of_job(clock: Clock) -> float | None:
    """Return the seconds until the end of the SLURM job; None outside one, or for a stale end that is over."""
    try:
        ends = datetime.fromtimestamp(int(os.environ[ENDS]), tz=timezone.utc)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    left = (ends - clock.now()).total_seconds()
    return left if left > 0 else None


def _seconds(word: str, value: Any) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, Real) and not isinstance(seconds, bool) and 0 < float(seconds) < math.inf:
        return float(seconds)
    raise ConfigurationError(_wrong(word, value))


def _wrong(word: str, value: object) -> str:
    kinds = "a datetime, a timedelta, seconds from now, or 'auto'" if word == "deadline" else "seconds or a timedelta"
    return f"`{word}` is {kinds}, more than 0, or None; but got {value!r}"
