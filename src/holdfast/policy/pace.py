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

    def learn(self, step: float | None, cost: float) -> Pace:
        """Return the pace after one more talk. ``step``: seconds of a step since the one before; None if unknown."""
        steps = self.steps if step is None else (*self.steps, step)[-_RECENT:]
        return replace(self, steps=steps, costs=(*self.costs, cost)[-_RECENT:])

    def interval(self, limit: float = math.inf) -> int:
        """Return after how many steps to talk again; 1 as long as nothing is known.

        The slowest of the recent steps counts, and the cheapest of the recent talks: the talks take at most
        ``SHARE`` of the time, unless an answer would then take longer than ``LONGEST`` or the limit.

        Args:
            limit: seconds of training between two talks, at most.

        """
        step = max(self.steps, default=0.0)
        if step <= 0:
            return 1
        enough = min(self.costs, default=0.0) / SHARE  # seconds after which a talk is worth its cost
        seconds = max(0.0, min(max(RESPONSE, enough), LONGEST, limit))
        most = max(MOST, math.ceil(enough / step))
        return max(1, min(int(min(seconds / step, most)), most))
