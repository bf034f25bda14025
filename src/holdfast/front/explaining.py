"""Why checkpoints are kept, or would go: each run by its own recorded rules, or all by given ones. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime

from holdfast.errors import ConfigurationError
from holdfast.front.checkpoint import Checkpoint
from holdfast.policy import keeping
from holdfast.policy.retention import Decision
from holdfast.policy.rules import All
from holdfast.policy.terms import Term
from holdfast.records import RANKED
from holdfast.storage import Store

_UNREADABLE = "what its run was told to keep cannot be read"


def decide(
    store: Store,
    checkpoints: Sequence[Checkpoint],
    now: datetime,
    *,
    keep: object = None,
    resumed_from: Collection[str] = (),
) -> list[Decision]:
    """Decide for each checkpoint of a directory, in the given order, whether it is kept and why.

    Args:
        store: that of the checkpoints.
        checkpoints: all that are there.
        now: the time, aware of its zone.
        keep: rules for all runs; None for those that each run has recorded.
        resumed_from: names of further checkpoints that runs resumed from.

    Raises:
        ConfigurationError: for what is no rule, or a time without a zone.

    """
    given = None if keep is None else keeping.rules_of(keep)
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, checkpoint in enumerate(checkpoints):
        groups[checkpoint.run, checkpoint.owner, checkpoint.folder].append(place)
    decisions: dict[int, Decision] = {}
    for places in groups.values():
        members = [checkpoints[place] for place in places]
        newest = max(members, key=lambda member: (member.role == RANKED, member.sequence))
        decided = keeping.plan(
            recorded_rules(newest) if given is None else given,
            members,
            now,
            monitor=newest.monitor,
            mode=newest.mode,
            resumed_from={*resumed_from, *_sources(store, members)},
        )
        decisions.update(zip(places, decided, strict=True))
    return [decisions[place] for place in range(len(checkpoints))]


def recorded_rules(checkpoint: Checkpoint) -> tuple[Term, ...]:
    """Return the rules that a run says in this checkpoint it keeps by; all are kept where they cannot be read."""
    policy = checkpoint.facts.policy if checkpoint.facts is not None else {}
    keep, top = policy.get("keep"), policy.get("save_top_k", -1)
    try:
        if keep is not None:
            from holdfast.policy.notation import parse_rules  # noqa: PLC0415 - few record any, and it loads a parser

            return parse_rules(keep)
        return keeping.rules_for(checkpoint.monitor, checkpoint.mode, top)
    except ConfigurationError:
        return (All(_UNREADABLE),)


def _sources(store: Store, members: Sequence[Checkpoint]) -> set[str]:
    """Return the names of those that the run says it resumed from, where it last did.

    By the path it gives, or, as the directory may have been moved, by name, step and run, if it gives one.
    """
    newest = max((member for member in members if member.facts is not None), key=_sequence, default=None)
    lineage = newest.facts.resumed_from if newest is not None and newest.facts is not None else None
    if lineage is None:
        return set()
    name, base = store.name_of(lineage.path), lineage.path.rpartition("/")[2]
    return {
        member.name
        for member in members
        if member.name == name
        or (
            lineage.run in (None, member.run) and member.step == lineage.step and member.name.rpartition("/")[2] == base
        )
    }


def _sequence(checkpoint: Checkpoint) -> int:
    return checkpoint.sequence
