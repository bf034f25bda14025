"""What several ranks tell each other between saves: one small tensor, every so many steps.

Rank 0 tells what its clock and its metrics ask for, and after how many steps the ranks talk again; every rank tells
which signals it was sent. Where there is nothing to tell, the ranks do not talk at all: see ``docs/ranks.md``.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from holdfast.clock import Clock
from holdfast.policy.pace import Pace
from holdfast.ranks import Ranks


class News(enum.IntFlag):
    """What rank 0 has to tell."""

    NONE = 0
    DUE = 1  # a save, by rank 0's clock or metrics
    LANDED = 2  # a save that was on its way is over
    DEADLINE = 4  # the last moment to save before the deadline


@dataclass(frozen=True)
class Heard:
    """What every rank knows after a beat, the same on each.

    Attributes:
        news: rank 0's.
        signals: which came, to any rank, and were not answered yet.

    """

    news: News = News.NONE
    signals: tuple[int, ...] = ()


QUIET = Heard()


class Pulse:
    """Says at which steps the ranks talk, the same ones on every rank, and has them talk.

    Args:
        ranks: those that talk.
        signals: which of them it tells of; the same on every rank.
        clock: by which steps are measured; rank 0's alone counts.
        sent: the signals that came to this rank: asked at each beat.

    Attributes:
        beats: how often they have talked.

    """

    def __init__(self, ranks: Ranks, signals: Collection[int], clock: Clock, sent: Collection[int]) -> None:
        """Talk at the next step."""
        self._ranks = ranks
        self._signals = sorted(signals)
        self._clock = clock
        self._sent = sent
        self._pace = Pace()
        self._every = 1
        self._steps = 0  # since the last beat, or since ``soon``
        self._since: float | None = None
        self.beats = 0

    @property
    def every(self) -> int:
        """After how many steps the ranks talk again."""
        return self._every

    @property
    def between(self) -> float:
        """Rank 0 only: how long that is, in seconds, by the slowest of the recent steps; 0 before any is measured."""
        return self._every * max(self._pace.steps, default=0.0)

    def due(self) -> bool:
        """Count a step; tell whether the ranks talk at its end."""
        self._steps += 1
        return self._steps >= self._every

    def soon(self) -> None:
        """Talk at the next step, whatever was told: at an event that all ranks have come to, such as a save."""
        self._every, self._steps, self._since = 1, 0, None

    def beat(
        self,
        news: Callable[[], News] = lambda: News.NONE,
        limit: Callable[[], float] = lambda: math.inf,
        *,
        at: str = "",
    ) -> Heard:
        """Talk; call it on every rank at the same step.

        Args:
            news: what there is to tell; called on rank 0 alone.
            limit: how many seconds of training may go by until the ranks talk again; called on rank 0 alone.
            at: where that is: as of ``Ranks.highest``.

        """
        if self._since is not None and self._steps:
            self._pace = self._pace.stepped((self._clock.monotonic() - self._since) / self._steps)
        mine = [0, 0]
        if self._ranks.leads:
            mine = [self._pace.interval(self._every, limit()), int(news())]
        begun = time.perf_counter()
        sent = [number in self._sent for number in self._signals]
        self._every, told, *flags = self._ranks.highest([*mine, *sent], at=at or "a beat")
        self._pace = self._pace.talked(time.perf_counter() - begun)
        self._steps, self._since = 0, self._clock.monotonic()
        self.beats += 1
        return Heard(News(told), tuple(number for number, flag in zip(self._signals, flags, strict=True) if flag))
