"""What the words ``monitor``, ``mode`` and ``save_top_k`` have always kept, said once more and by itself."""

from __future__ import annotations

from holdfast.policy import ranking
from holdfast.policy.keeping import plan as plan_by_rules
from holdfast.policy.keeping import rules_for
from holdfast.policy.retention import Decision
from holdfast.policy.terms import Known
from tests.policy.strategies import NOW


def plan_by_words(found, *, monitor, mode, save_top_k, resumed_from=()):
    """The rules that these words stand for, asked about a run's entries."""
    known = [
        Known(
            item.name,
            step=item.step,
            sequence=item.sequence,
            metrics={} if item.score is None or monitor is None else {monitor: item.score},
        )
        for item in found
    ]
    rules = rules_for(monitor, mode, save_top_k)
    return plan_by_rules(rules, known, NOW, monitor=monitor, mode=mode, resumed_from=resumed_from)


def plan(entries, *, monitor, mode, save_top_k, resumed_from=()):
    """Decide without any rules."""
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


def _among_best(rank, k, monitor, mode):
    extreme = "lowest" if mode == "min" else "highest"
    return f"the {extreme} {monitor}" if k == 1 else f"{rank} of the {k} {extreme} {monitor}"


def _missed(monitor, k):
    return "a newer one replaced it" if monitor is None else f"not among the best {k} by {monitor}"
