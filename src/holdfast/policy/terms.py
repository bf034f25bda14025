"""What the two languages share: of what to keep, and of when to save. A sentence is terms joined by ``|``.

A term is a value. It is compared by what it says, can be a member of a set, and prints as it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from holdfast.errors import ConfigurationError
from holdfast.policy.ranking import badness
from holdfast.policy.retention import Decision


class Candidate(Protocol):
    """A committed checkpoint, as the rules see it. Two of one ``file_id`` share their bytes ("": not known).

    ``time`` is aware of its zone; None if it is not known. ``size`` is in bytes; 0 if it is not known. ``role`` is
    ``"ranked"`` for what the rules decide about. What has another role is none of theirs, and is kept.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the attributes of a checkpoint; the class says what is special
    @property
    def role(self) -> str | None: ...  # noqa: D102
    @property
    def run(self) -> str: ...  # noqa: D102
    @property
    def owner(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def sequence(self) -> int: ...  # noqa: D102
    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def time(self) -> datetime | None: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def file_id(self) -> str: ...  # noqa: D102
    @property
    def pinned(self) -> bool: ...  # noqa: D102
    @property
    def tags(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Known:
    """A candidate as a plain value.

    Attributes:
        folder: where its run's files lie: two folders with copies of one run are two runs to the rules. What has no
            such attribute lies in one.

    """

    name: str
    step: int = 0
    epoch: int = 0
    sequence: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: datetime | None = None
    size: int = 0
    file_id: str = ""
    pinned: bool = False
    tags: tuple[str, ...] = ()
    role: str | None = "ranked"
    run: str = ""
    owner: str = ""
    folder: str = ""


@dataclass(frozen=True)
class Group:
    """The ranked checkpoints of one run, in which each rule makes its choice.

    Attributes:
        members: the checkpoints. A rule speaks of them by their places here.
        now: the time, aware of its zone.
        monitor, mode: the metric that the run is about, if there is one.

    """

    members: Sequence[Candidate]
    now: datetime
    monitor: str | None = None
    mode: str = "min"

    def newest_first(self, places: Iterable[int] | None = None) -> list[int]:
        """Return places, those that were saved later first."""
        return sorted(range(len(self.members)) if places is None else places, key=self.age)

    def age(self, place: int) -> tuple[int, int, str]:
        """Return a key that sorts the later save first. No clock has a say in it."""
        member = self.members[place]
        return (-member.sequence, -member.step, member.name)

    def ranked(self, metric: str, mode: str) -> list[int]:
        """Return the places of those that have the metric, best first; NaN last; of equals, the older first."""
        scores = {
            place: member.metrics[metric] for place, member in enumerate(self.members) if metric in member.metrics
        }
        names = [member.name for member in self.members]
        sequence = [member.sequence for member in self.members]
        return sorted(scores, key=lambda place: (badness(scores[place], mode), sequence[place], names[place]))

    def best(self, metric: str, mode: str) -> list[int]:
        """Return the place of the best by a real score; several only where nothing tells them apart."""
        order = self.ranked(metric, mode)
        if not order:
            return []
        first = self.members[order[0]]
        score = first.metrics[metric]
        if math.isnan(score):
            return []
        twins = (place for place in order if self.members[place].sequence == first.sequence)
        return [place for place in twins if self.members[place].metrics[metric] == score]

    def first_of_each(self, key: Callable[[Candidate], int | None], order: Iterable[int]) -> list[int]:
        """Return, in the given order, the first place of each key; those of key None are left out."""
        chosen: dict[int, int] = {}
        for place in order:
            bucket = key(self.members[place])
            if bucket is not None:
                chosen.setdefault(bucket, place)
        return list(chosen.values())


class Term:
    """One rule of what to keep, one trigger of when to save, or several of them: ``a | b``."""

    @property
    def is_rule(self) -> bool:
        """Whether it can say what to keep."""
        return False

    @property
    def is_trigger(self) -> bool:
        """Whether it can say when to save."""
        return False

    @property
    def parts(self) -> tuple[Term, ...]:
        """The single terms that it is made of."""
        return (self,)

    def __or__(self, other: object) -> Term:
        """Return what keeps (or saves) where either does."""
        return any_of((self, other)) if isinstance(other, Term) else NotImplemented

    def __repr__(self) -> str:
        """Return the notation, which is Python too."""
        return str(self)

    def plan(
        self,
        catalog: Iterable[Candidate],
        now: datetime,
        *,
        monitor: str | None = None,
        mode: str = "min",
        resumed_from: Collection[str] = (),
    ) -> list[Decision]:
        """Decide for each checkpoint, in the given order, whether it is kept, why, and by which rules.

        Nothing is removed by asking. See ``holdfast.policy.keeping.plan``, which this calls.

        Raises:
            ConfigurationError: if a part of this says when to save, and not what to keep.

        """
        from holdfast.policy import keeping  # noqa: PLC0415 - it knows every rule, and each rule is a Term

        return keeping.plan(keeping.rules_of(self), catalog, now, monitor=monitor, mode=mode, resumed_from=resumed_from)


class Trigger(Term):
    """A term that says when to save, and nothing about what is kept."""

    @property
    def is_trigger(self) -> bool:
        """True."""
        return True


class Rule(Term):
    """A term that says what to keep. Each makes its choice alone: what any of them chooses is kept."""

    @property
    def is_rule(self) -> bool:
        """True."""
        return True

    def choose(self, group: Group) -> dict[int, str]:
        """Return the places of what it keeps, each with the reason.

        The choice does not depend on the order of the members. It is the same whether what was not chosen before
        has been removed since or not, so a run that forgets as it goes ends with what it would choose from all.
        """
        raise NotImplementedError

    def missed(self, group: Group) -> str:
        """Return why it does not keep the others."""
        raise NotImplementedError

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return how many it keeps at most in a run of so many steps and epochs; None if nothing bounds that."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class AnyOf(Term):
    """Several terms. Their order is kept for reading and means nothing; equal ones count once."""

    terms: tuple[Term, ...]

    @property
    def parts(self) -> tuple[Term, ...]:
        """The single terms."""
        return self.terms

    @property
    def is_rule(self) -> bool:
        """Whether all of them can say what to keep."""
        return all(part.is_rule for part in self.terms)

    @property
    def is_trigger(self) -> bool:
        """Whether all of them can say when to save."""
        return all(part.is_trigger for part in self.terms)

    def __eq__(self, other: object) -> bool:
        """Compare as sets."""
        return isinstance(other, AnyOf) and frozenset(self.terms) == frozenset(other.terms)

    def __hash__(self) -> int:
        """Hash as a set."""
        return hash(frozenset(self.terms))

    def __str__(self) -> str:
        """Return the notation."""
        return " | ".join(map(str, self.terms))


def any_of(terms: Iterable[Term]) -> Term:
    """Join terms: flat, and each once. One alone is itself.

    Raises:
        ConfigurationError: for no terms at all.

    """
    parts = tuple(dict.fromkeys(part for term in terms for part in term.parts))
    if not parts:
        msg = "no term was given: write at least one, such as Latest(3)"
        raise ConfigurationError(msg)
    return parts[0] if len(parts) == 1 else AnyOf(parts)
