"""The rules of what to keep, each a value.

They are joined by ``|``, in any order: what one of them keeps is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import extreme, metric_name, whole_number
from holdfast.policy.spans import span
from holdfast.policy.terms import Candidate, Group, Rule


@dataclass(frozen=True, repr=False)
class Latest(Rule):
    """Keeps the ``n`` that were saved last, by the order of the saves and not by any clock."""

    n: int = 1

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "n", whole_number("n of Latest(n)", self.n, least=0))

    def choose(self, group: Group) -> dict[int, str]:
        """Choose by the order of the saves."""
        chosen = group.newest_first()[: self.n]
        return {place: f"{at} of the {self.n} newest" if at > 1 else "the newest" for at, place in enumerate(chosen, 1)}

    def missed(self, group: Group) -> str:
        """Say how many are newer."""
        del group
        return "a newer one replaced it" if self.n <= 1 else f"not among the {self.n} newest"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return ``n``."""
        del steps, epochs
        return self.n

    def __str__(self) -> str:
        """Return the notation."""
        return f"Latest({self.n})"


@dataclass(frozen=True, repr=False)
class Best(Rule):
    """Keeps the ``k`` best by a metric: by the monitored one if none is named.

    Several of them, over different metrics, stand beside each other. NaN is the worst score whatever the mode, and of
    equal scores the older checkpoint is better. What lacks the metric is not ranked.

    Attributes:
        k: how many.
        metric: its name, as it was logged; None for the monitored one.
        mode: ``"min"`` if lower is better (also if it is not given), ``"max"`` if higher is. The monitored
            metric has its own.

    """

    k: int = 1
    metric: str | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        object.__setattr__(self, "k", whole_number("k of Best(k, metric)", self.k, least=0))
        if self.metric is None:
            if self.mode is not None:
                msg = f"Best({self.k}, mode={self.mode!r}) names no metric: the monitored one has its own mode"
                raise ConfigurationError(msg)
            return
        metric_name("metric of Best(k, metric)", self.metric)
        mode = "min" if self.mode is None else self.mode
        object.__setattr__(self, "mode", extreme(f"mode of Best({self.k}, {self.metric!r})", mode))

    def sought(self, group: Group) -> tuple[str | None, str]:
        """Return the metric and the mode that it ranks by in this run."""
        return (group.monitor, group.mode) if self.metric is None else (self.metric, self.mode or "min")

    def choose(self, group: Group) -> dict[int, str]:
        """Choose by the metric."""
        metric, mode = self.sought(group)
        if metric is None:
            return {}
        what = f"{'lowest' if mode == 'min' else 'highest'} {metric}"
        order = group.ranked(metric, mode)[: self.k]
        return {
            place: f"the {what}" if self.k == 1 else f"{rank} of the {self.k} {what}"
            for rank, place in enumerate(order, 1)
        }

    def missed(self, group: Group) -> str:
        """Say by which metric others are better."""
        metric, _ = self.sought(group)
        return "nothing is monitored" if metric is None else f"not among the best {self.k} by {metric}"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return ``k``."""
        del steps, epochs
        return self.k

    def __str__(self) -> str:
        """Return the notation."""
        return f"Best({self.k})" if self.metric is None else f"Best({self.k}, {self.metric!r}, mode={self.mode!r})"


@dataclass(frozen=True, repr=False)
class EverySteps(Rule):
    """Keeps one checkpoint for every ``n`` steps; as a trigger, saves every ``n`` steps.

    Kept is the first at or after each multiple of ``n``, and before the next multiple: those of the multiples
    themselves where they are saved, and one for each where the saves fall beside them, as they do when epochs end at
    odd steps. What was saved before step ``n`` is not kept by this, unless at step 0.
    """

    n: int

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "n", whole_number("n of EverySteps(n)", self.n, least=1))

    @property
    def is_trigger(self) -> bool:
        """True."""
        return True

    def choose(self, group: Group) -> dict[int, str]:
        """Choose the first of each block of steps; of one step, the one saved last."""
        order = sorted(range(len(group.members)), key=lambda place: (group.members[place].step, *group.age(place)))
        return {
            place: f"the first from step {group.members[place].step // self.n * self.n}"
            for place in group.first_of_each(self._block, order)
        }

    def _block(self, member: Candidate) -> int | None:
        return member.step // self.n if member.step >= self.n or member.step == 0 else None

    def missed(self, group: Group) -> str:
        """Say what it is not."""
        del group
        return f"not the first after a multiple of {self.n} steps"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return how many multiples there are, step 0 among them."""
        del epochs
        return None if steps is None else max(0, steps) // self.n + 1

    def __str__(self) -> str:
        """Return the notation."""
        return f"EverySteps({self.n})"


@dataclass(frozen=True, repr=False)
class EveryEpochs(Rule):
    """Keeps one checkpoint for every ``n`` epochs; as a trigger, saves at the end of every ``n``-th epoch.

    Kept is the last one of every ``n``-th epoch; of the next epoch that has one where that epoch has none.
    Epochs count from 0, so ``EveryEpochs(10)`` keeps the last of epoch 9, of epoch 19, and so on.
    """

    n: int

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "n", whole_number("n of EveryEpochs(n)", self.n, least=1))

    @property
    def is_trigger(self) -> bool:
        """True."""
        return True

    def choose(self, group: Group) -> dict[int, str]:
        """Choose the last of the first epoch of each block of epochs."""
        order = sorted(range(len(group.members)), key=lambda place: (group.members[place].epoch, *group.age(place)))
        return {
            place: f"the last of epoch {group.members[place].epoch}"
            for place in group.first_of_each(self._block, order)
        }

    def _block(self, member: Candidate) -> int | None:
        return (member.epoch + 1) // self.n or None

    def missed(self, group: Group) -> str:
        """Say what it is not."""
        del group
        return "not the last of an epoch" if self.n == 1 else f"not the last of every {self.n} epochs"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return how many such epochs there are."""
        del steps
        return None if epochs is None else max(0, epochs) // self.n

    def __str__(self) -> str:
        """Return the notation."""
        return f"EveryEpochs({self.n})"


@dataclass(frozen=True, repr=False)
class Newer(Rule):
    """Keeps what was saved less than this long ago: a ``timedelta``, or a text such as ``"36h"``, ``"7d"``, ``"2w"``.

    What was saved at a time that is not known, or that lies in the future, is kept.
    """

    than: timedelta | str

    def __post_init__(self) -> None:
        """Check the time."""
        object.__setattr__(self, "than", span("Newer", self.than))

    @property
    def span(self) -> timedelta:
        """How long."""
        return self.than if isinstance(self.than, timedelta) else span("Newer", self.than)

    def choose(self, group: Group) -> dict[int, str]:
        """Choose by the clock that wrote the manifest, and the one that is asked now."""
        reasons = {}
        for place, member in enumerate(group.members):
            if member.time is None:
                reasons[place] = "its time is not known"
            elif group.now - member.time < self.span:
                reasons[place] = f"less than {self._words()} old"
        return reasons

    def missed(self, group: Group) -> str:
        """Say how old it is at least."""
        del group
        return f"older than {self._words()}"

    def _words(self) -> str:
        return str(self.span).removesuffix(", 0:00:00")

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return None: how fast the run saves is not known here."""
        del steps, epochs
        return None

    def __str__(self) -> str:
        """Return the notation."""
        span = self.span
        parts = {"days": span.days, "seconds": span.seconds, "microseconds": span.microseconds}
        words = ", ".join(f"{unit}={value}" for unit, value in parts.items() if value)
        return f"Newer(timedelta({words}))"


@dataclass(frozen=True, repr=False)
class Pinned(Rule):
    """Keeps what somebody has pinned. Every list of rules does; this says it aloud."""

    def choose(self, group: Group) -> dict[int, str]:
        """Choose the pinned ones."""
        return {place: "pinned" for place, member in enumerate(group.members) if member.pinned}

    def missed(self, group: Group) -> str:
        """Say that it is not pinned."""
        del group
        return "not pinned"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return 0: what is pinned comes on top of any number."""
        del steps, epochs
        return 0

    def __str__(self) -> str:
        """Return the notation."""
        return "Pinned()"


@dataclass(frozen=True, repr=False)
class All(Rule):
    """Keeps everything, as far as a budget allows.

    Attributes:
        because: the reason that it gives.

    """

    because: str = field(default="all are kept", compare=False)

    def choose(self, group: Group) -> dict[int, str]:
        """Choose all."""
        return dict.fromkeys(range(len(group.members)), self.because)

    def missed(self, group: Group) -> str:
        """Never the case."""
        del group
        return ""

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return None."""
        del steps, epochs
        return None

    def __str__(self) -> str:
        """Return the notation."""
        return "All()"
