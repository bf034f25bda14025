"""What saving costs a run, for ``EverySeconds("auto")``: looked up in what is counted anyway."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast.engine import SaveStats
from holdfast.policy.seconds import NOTHING_SPENT, Spent
from holdfast.policy.when import Triggers

log = logging.getLogger("holdfast")

_RECENT = 5  # saves that count: the first ones are slower, and what is trained may change
_USUAL_NODE = 8  # ranks on a machine, where nothing says how many there are
_NEWS = 1.25  # by which factor an interval has changed if it is worth a line in the log


@dataclass
class Costs:
    """Makes ``Spent`` of the counts of a run. One for each run, on the rank that decides."""

    _seen: deque[tuple[int, float]] = field(default_factory=lambda: deque([(0, 0.0)], maxlen=_RECENT + 1))
    _told: float = 0.0

    def look(self, when: Triggers, stats: SaveStats, ranks: int = 1) -> Spent:
        """Return what the last few saves have cost, on average, with all that they have held the training back for.

        Nothing where no trigger asks for it. Logs how often time asks for a save, once that has changed by a quarter.
        """
        if not when.paced:
            return NOTHING_SPENT
        saves = stats.saves or stats.committed  # those that do not go on behind the training are only counted there
        total = stats.stall_seconds + stats.wait_seconds
        known = self._seen[-1][0]
        if saves > known:
            self._seen.append((saves, total))
        before, already = self._seen[0]
        stall = max(0.0, total - already) / max(1, saves - before)
        spent = Spent(saves, stall, stats.commit_seconds, nodes_of(ranks))
        if saves > known or not self._told:
            self._tell(when, spent)
        return spent

    def _tell(self, when: Triggers, spent: Spent) -> None:
        interval = when.interval(spent) or 0.0
        if self._told and 1 / _NEWS < interval / self._told < _NEWS:
            return
        self._told = interval
        why = "until it is known what one costs"
        if spent.saves:
            hours = when.paced[0].failing(spent.nodes) / 3600
            why = f"which stops the training for {spent.stall:.2g} s, against a failure every {hours:.3g} h"
        log.info("a save is due every %.0f s, %s", interval, why)


@contextmanager
def stalled(stats: SaveStats) -> Iterator[Callable[[], float]]:
    """Count the time of a save that nothing goes on behind; yields what returns it, in seconds."""
    begun, before = time.perf_counter(), stats.stall_seconds
    try:
        yield lambda: stats.stall_seconds - before
    finally:
        stats.stall_seconds += time.perf_counter() - begun


def nodes_of(ranks: int) -> int:
    """Return on how many machines so many ranks are: as torchrun says, else eight on each."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    each = int(said) if said.isdecimal() and int(said) else _USUAL_NODE
    return -(-ranks // each)
