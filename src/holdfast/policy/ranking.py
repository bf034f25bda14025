"""Which checkpoint is better.

NaN is the worst score whatever the mode, and never the best one. Of equal scores the older
checkpoint wins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from holdfast.policy.ledger import Entry


def badness(score: float, mode: str) -> tuple[bool, float]:
    """Return a key that sorts scores from best to worst."""
    if math.isnan(score):
        return (True, 0.0)
    return (False, score if mode == "min" else -score)


def ranked(entries: Sequence[Entry], mode: str) -> list[Entry]:
    """Return the entries that have a score, best first; of equals, the older first."""
    scored = [entry for entry in entries if entry.score is not None]
    return sorted(scored, key=lambda entry: (badness(_score(entry), mode), entry.sequence))


def best(entries: Sequence[Entry], mode: str) -> Entry | None:
    """Return the best entry, or None when there is none with a real score."""
    order = ranked(entries, mode)
    return order[0] if order and not math.isnan(_score(order[0])) else None


def worst(entries: Sequence[Entry], mode: str) -> Entry | None:
    """Return the worst entry (of equals the youngest), or None when none has a score."""
    order = ranked(entries, mode)
    return order[-1] if order else None


def admits(entries: Sequence[Entry], score: float, k: int, mode: str) -> bool:
    """Tell whether a checkpoint of this score belongs among the best k (-1: all, 0: none)."""
    order = ranked(entries, mode)
    if k == -1 or len(order) < k:
        return True
    return k > 0 and badness(score, mode) < badness(_score(order[k - 1]), mode)


def _score(entry: Entry) -> float:
    return math.nan if entry.score is None else entry.score
