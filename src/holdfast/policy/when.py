"""When to save, as values: ``EverySteps(1000) | EverySeconds(600) | OnImprovement("val_loss")``.

Terms are joined with ``|``: a save is due when at least one of them is due. Several of a kind may stand together, and
their order does not matter.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import extreme, metric_name, number, whole_number
from holdfast.policy.rules import EveryEpochs, EverySteps
from holdfast.policy.seconds import NOTHING_SPENT, EverySeconds, Spent
from holdfast.policy.terms import Term, Trigger

_USUAL = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")


@dataclass(frozen=True, init=False, repr=False)
class OnSignal(Trigger):
    """Save at the end of the step during which one of these signals came, and only then let it act.

    Without arguments: SIGINT, SIGTERM, SIGUSR1 and SIGUSR2, as far as the system has them. Given are numbers
    (``signal.SIGUSR1``) or names (``"SIGUSR1"``).

    Raises:
        ConfigurationError: for what is no signal of this system.

    """

    signals: frozenset[int]

    def __init__(self, *which: int | str) -> None:
        """Take the signals."""
        usual = [name for name in _USUAL if hasattr(signal, name)]
        object.__setattr__(self, "signals", frozenset(_signal(item) for item in which or usual))

    def __str__(self) -> str:
        """Return the notation."""
        names = sorted(_name(number) for number in self.signals)
        usual = sorted(name for name in _USUAL if hasattr(signal, name))
        return "OnSignal()" if names == usual else f"OnSignal({', '.join(names)})"


@dataclass(frozen=True, repr=False)
class OnImprovement(Trigger):
    """Save when a metric, whenever it is measured, is better than in every state that the run has saved.

    The first value that is a number counts as better than none. NaN is never better.

    Args:
        metric: its name.
        mode: ``"min"`` or ``"max"``: which values are better.
        min_delta: by how much it has to be better, at least; 0 means by anything at all.

    Raises:
        ConfigurationError: for a value that cannot be meant.

    """

    metric: str
    mode: str = "min"
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the words."""
        metric_name("metric of OnImprovement(metric)", self.metric)
        extreme(f"mode of OnImprovement({self.metric!r})", self.mode)
        object.__setattr__(self, "min_delta", number("min_delta of OnImprovement", self.min_delta))

    def __str__(self) -> str:
        """Return the notation."""
        delta = f", min_delta={self.min_delta!r}" if self.min_delta else ""
        return f"OnImprovement({self.metric!r}, mode={self.mode!r}{delta})"

    @property
    def key(self) -> str:
        """Under which the best value that was saved is remembered."""
        return f"{self.mode} {self.metric}"

    def improves(self, value: float, best: float | None) -> bool:
        """Tell whether a value is better by enough than the best one of what was saved; None if nothing was."""
        if math.isnan(value):
            return False
        if best is None or math.isnan(best):
            return True
        gain = best - value if self.mode == "min" else value - best
        return gain > 0 and gain >= self.min_delta


@dataclass(frozen=True, repr=False)
class At(Trigger):
    """Save when exactly so many optimizer steps are finished: ``At([100, 1000])``.

    Raises:
        ConfigurationError: for what is no step from 1 on.

    """

    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        """Sort them, each once."""
        given: Any = self.steps
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            given = (given,)
        steps = {whole_number("a step of At([steps])", item, least=1) for item in given}
        object.__setattr__(self, "steps", tuple(sorted(steps)))

    def __str__(self) -> str:
        """Return the notation."""
        return f"At([{', '.join(map(str, self.steps))}])"


@dataclass(frozen=True)
class Triggers:
    """All triggers of a run, sorted by what has to be asked of a moment.

    Attributes:
        steps: periods in steps.
        epochs: periods in epochs.
        seconds: the shortest fixed period in seconds; None without one.
        paced: periods that follow from what saving costs: ``EverySeconds("auto")``.
        at: single steps.
        improvements: metrics that are watched.
        signals: those that ask for a save; None if nothing was said of signals.

    """

    steps: tuple[int, ...] = ()
    epochs: tuple[int, ...] = ()
    seconds: float | None = None
    at: frozenset[int] = frozenset()
    improvements: tuple[OnImprovement, ...] = ()
    signals: frozenset[int] | None = None
    paced: tuple[EverySeconds, ...] = ()

    @classmethod
    def of(cls, terms: Iterable[Term]) -> Triggers:
        """Sort the terms."""
        terms = tuple(terms)
        timed = [term for term in terms if isinstance(term, EverySeconds)]
        heard = [term.signals for term in terms if isinstance(term, OnSignal)]
        improvements = {term for term in terms if isinstance(term, OnImprovement)}
        return cls(
            steps=tuple(sorted({term.n for term in terms if isinstance(term, EverySteps)})),
            epochs=tuple(sorted({term.n for term in terms if isinstance(term, EveryEpochs)})),
            seconds=min((term.interval() for term in timed if not term.is_auto), default=None),
            at=frozenset(step for term in terms if isinstance(term, At) for step in term.steps),
            improvements=tuple(sorted(improvements, key=str)),
            signals=frozenset().union(*heard) if heard else None,
            paced=tuple(sorted({term for term in timed if term.is_auto}, key=str)),
        )

    @cached_property
    def looks_at_every_step(self) -> bool:
        """Whether more than the number of the step decides whether it is due."""
        return self.timed or bool(self.improvements)

    @cached_property
    def timed(self) -> bool:
        """Whether time makes saves due."""
        return self.seconds is not None or bool(self.paced)

    def interval(self, spent: Spent = NOTHING_SPENT) -> float | None:
        """Return the seconds after which time makes a save due, by what saving has cost; None if it never does."""
        paced = [term.interval(spent) for term in self.paced]
        return min(paced + ([self.seconds] if self.seconds is not None else []), default=None)

    def due_by_time(self, elapsed: float | None, spent: Spent) -> list[str]:
        """Return why time makes a save due; nothing if it does not."""
        interval = self.interval(spent)
        if interval is None or elapsed is None or elapsed < interval:
            return []
        paced = interval != self.seconds
        return [f"every {interval:.0f} s, by what a save costs" if paced else f"every {interval:g} s"]

    def counts(self, step: int) -> bool:
        """Tell cheaply whether the number of a step makes a save due."""
        for n in self.steps:  # a generator would take three times as long, and this is asked at every step
            if not step % n:
                return True
        return step in self.at

    def due_at_step(self, step: int) -> list[str]:
        """Return why the number of a step makes a save due; nothing if it does not."""
        reasons = [_every(n, "step") for n in self.steps if not step % n]
        return reasons + ([f"at step {step}"] if step in self.at else [])

    def due_at_epoch(self, epoch: int) -> list[str]:
        """Return why the end of an epoch, counted from 0, makes a save due; nothing if it does not."""
        return [_every(n, "epoch") for n in self.epochs if not (epoch + 1) % n]

    def improved(self, measured: Mapping[str, float], best: Mapping[str, float]) -> list[OnImprovement]:
        """Return those whose metric is better than the best ones that were saved, by their keys."""
        return [
            term
            for term in self.improvements
            if term.metric in measured and term.improves(measured[term.metric], best.get(term.key))
        ]

    def values(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return what is remembered of a state with these metrics once it is saved."""
        found = ((term.key, measured.get(term.metric, math.nan)) for term in self.improvements)
        return {key: value for key, value in found if not math.isnan(value)}


def better_of(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return the better of what is remembered in two places."""
    best = dict(one)
    for key, value in other.items():
        choose = min if key.startswith("min ") else max
        best[key] = choose(best.get(key, value), value)
    return best


def triggers_of(value: object) -> tuple[Term, ...]:
    """Return the triggers that a user means by one, by several joined with ``|``, or by an iterable of them.

    Raises:
        ConfigurationError: naming what is none.

    """
    given: Any = (value,) if isinstance(value, (Term, str, bytes)) or not isinstance(value, Iterable) else value
    found: dict[Term, None] = {}
    for item in given:
        for term in item.parts if isinstance(item, Term) else (item,):
            if not (isinstance(term, Term) and term.is_trigger):
                raise ConfigurationError(_no_trigger(term))
            found[term] = None
    return tuple(sorted(found, key=str))


def _no_trigger(value: object) -> str:
    return (
        f"`save_when` takes EverySteps, EverySeconds, EveryEpochs, OnSignal, OnImprovement and At, joined with `|`, "
        f"but got {value!r}"
    )


def _every(n: int, unit: str) -> str:
    return f"every {unit}" if n == 1 else f"every {n} {unit}s"


def _signal(value: object) -> int:
    named = isinstance(value, str) and value.startswith("SIG") and not value.startswith("SIG_")
    number = getattr(signal, str(value), None) if named else value
    if isinstance(number, int) and not isinstance(number, bool) and number in signal.valid_signals():
        return int(number)
    msg = f"OnSignal takes signals of this system, such as signal.SIGUSR1 or 'SIGUSR1', but got {value!r}"
    raise ConfigurationError(msg)


def _name(number: int) -> str:
    try:
        return repr(signal.Signals(number).name)
    except ValueError:  # a real-time signal, which has only a number
        return str(number)
