"""What is kept: every committed checkpoint gets an answer with its reason.

The floor stands below every rule: the newest, the best, and the one that the run resumed from are
kept whatever the rules say.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from holdfast.policy import ranking
from holdfast.policy.ledger import Entry


@dataclass(frozen=True)
class Decision:
    """Whether one checkpoint is kept, why, its place in the ranking (from 1), and the rules that keep it.

    ``rules`` holds their notations, and ``"floor: ..."`` for what is kept whatever the rules say.
    """

    name: str
    keep: bool
    reason: str
    rank: int | None = None
    rules: tuple[str, ...] = ()


def plan(
    entries: Sequence[Entry],
    *,
    monitor: str | None,
    mode: str,
    save_top_k: int,
    resumed_from: Collection[str] = (),
) -> list[Decision]:
    """Decide for each ranked checkpoint, in the given order, whether it is kept and why.

    ``resumed_from`` holds the names of the checkpoint that the run resumed from.
    """
    order = ranking.ranked(entries, mode) if monitor is not None else []
    places = {entry.name: place for place, entry in enumerate(order, 1)}
    best = ranking.best(order, mode)
    newest = max(entries, key=lambda entry: entry.sequence, default=None)
    decisions = []
    for entry in entries:
        rank = places.get(entry.name)
        reasons = []
        if save_top_k == -1:
            reasons.append("all are kept")
        elif save_top_k == 0:
            reasons.append("save_top_k=0 saves none and drops none")
        if monitor is not None and rank is not None and rank <= save_top_k:
            reasons.append(_among_best(rank, save_top_k, monitor, mode))
        elif entry is best:
            reasons.append(f"the best by {monitor}")
        if entry is newest:
            reasons.append("the newest")
        if entry.name in resumed_from:
            reasons.append("the run resumed from it")
        missed = _missed(monitor, save_top_k)
        decisions.append(Decision(entry.name, bool(reasons), ", ".join(reasons) or missed, rank))
    return decisions


def _among_best(rank: int, k: int, monitor: str, mode: str) -> str:
    extreme = "lowest" if mode == "min" else "highest"
    return f"the {extreme} {monitor}" if k == 1 else f"{rank} of the {k} {extreme} {monitor}"


def _missed(monitor: str | None, k: int) -> str:
    return "a newer one replaced it" if monitor is None else f"not among the best {k} by {monitor}"
