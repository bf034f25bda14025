"""How often several ranks talk between saves: from what was measured to a number of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

RESPONSE = 1.0  # seconds of training within which what one rank knows reaches the others, where talking is cheap
SHARE = 0.001  # of the training's time that talking may cost
LONGEST = 10.0  # seconds between two talks, however much they cost
MOST = 1000  # steps between two talks, unless talking more often costs more than its share
_RECENT = 4


@dataclass(frozen=True)
class Pace:
    """What the newest talks have shown.

    Attributes:
        steps: seconds of a step, on average between two talks; the newest last.
        costs: seconds that a talk took. Some of them is waiting for a slower rank, which training would do anyway.

    """

    steps: tuple[float, ...] = ()
    costs: tuple[float, ...] = ()

    def stepped(self, seconds: float) -> Pace:
        """Return the pace after some steps that took so long each."""
        return replace(self, steps=(*self.steps, seconds)[-_RECENT:])

    def talked(self, cost: float) -> Pace:
        """Return the pace after a talk that took so long."""
        return replace(self, costs=(*self.costs, cost)[-_RECENT:])

    def interval(self, before: int, limit: float = math.inf) -> int:
        """Return after how many steps to talk again; 1 as long as nothing is known.

        The slowest of the recent steps counts, and the cheapest of the recent talks: the talks take at most
        ``SHARE`` of the time, unless an answer would then take longer than ``LONGEST`` or the limit.

        Args:
            before: after how many steps the ranks have talked now: the interval at most doubles, so that steps which
                become slower after a pause or a save are seen soon.
            limit: seconds of training between two talks, at most.

        """
        step = max(self.steps, default=0.0)
        if step <= 0:
            return 1
        enough = min(self.costs, default=0.0) / SHARE  # seconds after which a talk is worth its cost
        seconds = max(0.0, min(max(RESPONSE, enough), LONGEST, limit))
        most = min(2 * before, max(MOST, math.ceil(enough / step)))
        return max(1, int(min(seconds / step, most)))
