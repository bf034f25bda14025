"""What the rules keep of the checkpoints of a directory: one decision for each, with its reasons.

The floor stands below every rule, in each run: the newest, the best by the monitored metric and by that of every
``Best``, the one that the run resumed from, and what is pinned. What no rule decides about (``last``, the file of an
exception or of a signal, what was saved, renamed or copied by hand) is kept too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from holdfast.errors import ConfigurationError
from holdfast.policy.budget import Within, over_budget
from holdfast.policy.retention import Decision
from holdfast.policy.rules import All, Best, Latest
from holdfast.policy.terms import Candidate, Group, Rule, Term

RANKED = "ranked"
BY_HAND = "by hand"
FOREIGN = "foreign"
NOT_RANKED: Mapping[str | None, str] = {
    "last": "the last state",
    "exception": "saved at an exception: never removed",
    "preempted": "saved at a signal: kept until the run commits a newer one",
    BY_HAND: "saved by hand: never removed",
    FOREIGN: "no manifest: never removed",
}
MOVED = "renamed or copied by hand: never removed"


def rules_of(value: object) -> tuple[Term, ...]:
    """Return the single rules of a term, of an iterable of terms, or of a text; each once. None at all are allowed.

    Raises:
        ConfigurationError: for what is no term, or says when to save and not what to keep.

    """
    if isinstance(value, str):
        from holdfast.policy.notation import parse_rules  # noqa: PLC0415 - it reads with the help of this module

        return parse_rules(value)
    terms: Iterable[object] = (value,) if isinstance(value, Term) or not isinstance(value, Iterable) else value
    parts: dict[Term, None] = {}
    for term in terms:
        if not isinstance(term, Term):
            msg = f"{term!r} is no rule: write terms such as Latest(3) | Best(2, 'val_loss')"
            raise ConfigurationError(msg)
        parts.update(dict.fromkeys(term.parts))
    for part in parts:
        if not part.is_rule:
            msg = f"{part} says when to save, not what to keep: it belongs into `save_when`"
            raise ConfigurationError(msg)
    return tuple(parts)


def rules_for(monitor: str | None, mode: str, save_top_k: int) -> tuple[Term, ...]:
    """Return the rules that the words ``monitor``, ``mode`` and ``save_top_k`` stand for."""
    if save_top_k == -1:
        return (All(),)
    if save_top_k == 0:
        return (All("save_top_k=0 saves none and drops none"),)
    return (Latest(save_top_k),) if monitor is None else (Best(save_top_k, monitor, mode=mode),)


def plan(  # noqa: PLR0913 - the question has as many parts
    rules: Iterable[Term],
    candidates: Iterable[Candidate],
    now: datetime,
    *,
    monitor: str | None,
    mode: str,
    resumed_from: Collection[str] = (),
) -> list[Decision]:
    """Decide for each checkpoint, in the given order, whether it is kept, why, and by which rules.

    What any rule keeps is kept, then the budgets (``Within``) take back the oldest. Each run is decided by itself.
    No rules at all keep the floor; budgets alone keep all that fits.

    Args:
        rules: single terms, as ``rules_of`` returns them; their order means nothing.
        candidates: what is there; the order means nothing.
        now: the time, aware of its zone.
        monitor: the metric that the runs are about, or None.
        mode: whether its lowest (``"min"``) or its highest value (``"max"``) is best.
        resumed_from: the names of the checkpoint that a run resumed from.

    Raises:
        ConfigurationError: for a time that is not aware of its zone.

    """
    if now.tzinfo is None:
        msg = f"the time {now} has no zone: use for example datetime.now(timezone.utc)"
        raise ConfigurationError(msg)
    given = list(candidates)
    sentence = tuple(sorted(dict.fromkeys(rules), key=str))  # so that their order does not show in the reasons either
    asked = _Asked(sentence, now, monitor, mode, frozenset(resumed_from))
    ranked: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    others: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, candidate in enumerate(given):
        (ranked if candidate.role == RANKED else others)[_run(candidate)].append(place)
    decisions: dict[int, Decision] = {}
    for places in others.values():
        decisions.update({place: _not_ranked(given[place]) for place in places})
    for run, places in ranked.items():
        beside = [given[place] for place in others[run]]
        decided = _decide(asked, [given[place] for place in places], beside)
        decisions.update(zip(places, decided, strict=True))
    return [decisions[place] for place in range(len(given))]


def most_kept(  # noqa: PLR0913 - each is a fact that bounds some rule
    rules: Iterable[Term],
    *,
    monitor: str | None = None,
    mode: str = "min",
    size: int = 0,
    saves: int | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    resumed: bool = False,
) -> int | None:
    """Return how many ranked checkpoints of a run the rules can keep at once, or None if nothing bounds them.

    An upper bound, which a run need not reach: one file may be kept by several rules. Pins, and files whose time is
    not known, come on top. While a save goes on there is one file more: it is committed before anything is removed.

    Args:
        rules: single terms, as ``rules_of`` returns them.
        monitor: the metric that the run is about, or None.
        mode: its mode.
        size: the bytes of one checkpoint; without them a budget bounds nothing.
        saves: how often the run saves at most, if that is known.
        steps: the step of its last save, if that is known.
        epochs: how many epochs it has, if that is known.
        resumed: whether the checkpoint that it resumed from lies in the same directory.

    """
    asked = _Asked(tuple(rules), _NEVER, monitor, mode, frozenset())
    bounds = [rule.most(steps, epochs) for rule in asked.keeping]
    rankings = [rule for rule in asked.rules if isinstance(rule, Best)]
    nobody = Group((), _NEVER, monitor, mode)
    sought = {rule.sought(nobody) for rule in rankings} | {(monitor, mode)}
    served = {rule.sought(nobody) for rule in rankings if rule.k}
    floor = 1 + sum(metric is not None for metric, _ in sought) + resumed
    newest = not any(isinstance(rule, Latest) and rule.n for rule in asked.rules)
    extra = newest + sum(metric is not None for metric, _ in sought - served) + resumed
    known = [bound for bound in bounds if bound is not None]
    most = sum(known) + extra if len(known) == len(bounds) else None
    if size > 0 and asked.limits:
        fits = max(floor, min(asked.limits) // size)
        most = fits if most is None else min(most, fits)
    return most if saves is None else saves if most is None else min(most, saves)


_NEVER = datetime.max.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class _Asked:
    """What was asked for, the same for all runs."""

    rules: tuple[Term, ...]
    now: datetime
    monitor: str | None
    mode: str
    resumed_from: frozenset[str]

    @property
    def keeping(self) -> tuple[Rule, ...]:
        """The rules that keep something; budgets alone bound everything."""
        keeping = tuple(rule for rule in self.rules if isinstance(rule, Rule))
        return keeping or ((All(),) if self.rules else ())

    @property
    def limits(self) -> list[int]:
        """The budgets, in bytes."""
        return [rule.limit for rule in self.rules if isinstance(rule, Within)]


@dataclass
class _Why:
    """Why one checkpoint is kept: reasons for people, rules for programs, and whether it is of the floor."""

    reasons: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    floor: bool = False

    def add(self, reason: str, rule: str, *, floor: bool = False) -> None:
        """Add a reason, once; "" if another rule has said it in its own words."""
        if reason and reason not in self.reasons:
            self.reasons.append(reason)
        if rule not in self.rules:
            self.rules.append(rule)
        self.floor |= floor


def _run(candidate: Candidate) -> tuple[str, str, str]:
    """What makes checkpoints those of one run: a copy of its directory is another."""
    return candidate.run, candidate.owner, getattr(candidate, "folder", "")


def _not_ranked(candidate: Candidate) -> Decision:
    what = f"floor: {candidate.role if candidate.role in NOT_RANKED else 'moved'}"
    return Decision(candidate.name, keep=True, reason=NOT_RANKED.get(candidate.role, MOVED), rules=(what,))


def _decide(asked: _Asked, members: Sequence[Candidate], beside: Sequence[Candidate]) -> list[Decision]:
    """Decide about the ranked checkpoints of one run."""
    group = Group(members, asked.now, asked.monitor, asked.mode)
    whys: dict[int, _Why] = defaultdict(_Why)
    for rule in asked.keeping:
        for place, reason in rule.choose(group).items():
            whys[place].add(reason, str(rule))
    _add_floor(asked, group, whys)
    gone: set[int] = set()
    if asked.limits:
        floor = {place for place, why in whys.items() if why.floor}
        gone = over_budget(group, whys, floor, beside, min(asked.limits))
    ranks = _ranks(asked, group)
    missed = _missed(asked, group)
    return [
        _decision(member.name, whys.get(place), ranks.get(place), missed, over=place in gone)
        for place, member in enumerate(members)
    ]


def _decision(name: str, why: _Why | None, rank: int | None, missed: str, *, over: bool) -> Decision:
    if why is None:
        return Decision(name, keep=False, reason=missed, rank=rank)
    reason = ", ".join(why.reasons)
    if over:
        return Decision(name, keep=False, reason=f"over the budget, and the oldest ({reason})", rank=rank)
    return Decision(name, keep=True, reason=reason, rank=rank, rules=tuple(why.rules))


def _add_floor(asked: _Asked, group: Group, whys: dict[int, _Why]) -> None:
    """Add what is kept whatever the rules say."""
    rankings = [rule for rule in asked.rules if isinstance(rule, Best)]
    for metric, mode in dict.fromkeys([(asked.monitor, asked.mode), *(rule.sought(group) for rule in rankings)]):
        for place in group.best(metric, mode) if metric is not None else []:
            chosen = any(str(rule) in whys[place].rules for rule in rankings if rule.sought(group) == (metric, mode))
            reason = "" if chosen else f"the best by {metric}"
            whys[place].add(reason, f"floor: best by {metric}", floor=True)
    latest = max((member.sequence for member in group.members), default=0)
    for place, member in enumerate(group.members):
        if member.sequence == latest:
            whys[place].add("the newest", "floor: newest", floor=True)
        if member.name in asked.resumed_from:
            whys[place].add("the run resumed from it", "floor: resumed from", floor=True)
        if member.pinned:
            whys[place].add("pinned", "floor: pinned", floor=True)


def _ranks(asked: _Asked, group: Group) -> dict[int, int]:
    """Return the places in the ranking by the monitored metric; without one, by that of all rules that rank."""
    sought = {rule.sought(group) for rule in asked.rules if isinstance(rule, Best)}
    metric, mode = (asked.monitor, asked.mode) if asked.monitor is not None else (None, "min")
    if metric is None and len(sought) == 1:
        metric, mode = sought.pop()
    if metric is None:
        return {}
    return {place: rank for rank, place in enumerate(group.ranked(metric, mode), 1)}


def _missed(asked: _Asked, group: Group) -> str:
    """Say why what no rule keeps goes."""
    return ", ".join(dict.fromkeys(rule.missed(group) for rule in asked.keeping)) or "no rule keeps it"
