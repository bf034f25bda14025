"""A ledger as the attributes that users of ``ModelCheckpoint`` know."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from holdfast.policy import ranking
from holdfast.policy.ledger import Ledger
from holdfast.policy.settings import Settings


@dataclass(frozen=True)
class Standing:
    """The ranking in names relative to the directory; "" and None where there is none yet."""

    best: str = ""
    best_score: float | None = None
    kth: str = ""
    kth_value: float = math.inf
    best_k: dict[str, float] = field(default_factory=dict)
    last: str = ""
    current_score: float | None = None


def standing(ledger: Ledger, settings: Settings) -> Standing:
    """Return the ranking of a ledger."""
    last = ledger.last.name if ledger.last is not None else ""
    k, mode = settings.save_top_k, settings.mode
    nothing = math.inf if mode == "min" else -math.inf
    if settings.monitor is None:
        newest = max(ledger.entries, key=lambda entry: entry.sequence, default=None)
        best = newest.name if newest is not None else ""
        return Standing(best=best, last=last, kth_value=nothing, current_score=ledger.current_score)
    order = ranking.ranked(ledger.entries, mode)
    top = order if k == -1 else order[:k]
    first = ranking.best(top, mode)
    full = top and (k == -1 or len(top) == k)
    by_age = sorted(top, key=lambda entry: entry.sequence)
    return Standing(
        best=first.name if first is not None else "",
        best_score=first.score if first is not None else None,
        kth=top[-1].name if full else "",
        kth_value=_number(top[-1].score) if full else nothing,
        best_k={entry.name: _number(entry.score) for entry in by_age},
        last=last,
        current_score=ledger.current_score,
    )


def _number(score: float | None) -> float:
    return math.nan if score is None else score
