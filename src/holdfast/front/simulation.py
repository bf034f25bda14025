"""What a policy would keep of a run that has not been run: rules, saves and sizes in, files and bytes out."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.policy.budget import parse_bytes
from holdfast.policy.checks import extreme, metric_name, whole_number
from holdfast.policy.keeping import plan, rules_of
from holdfast.policy.notation import show_rules
from holdfast.policy.retention import Decision
from holdfast.policy.rules import Best, Newer
from holdfast.policy.terms import Known, Term
from holdfast.policy.thinning import Thin

__all__ = ["Course", "Point", "Simulation", "simulate"]

_MOST_SAVES = 2_000_000
_MOST_LOOKS = 200_000  # checkpoints that the rules look at, over all saves: a second or two
_LEAST_POINTS = 20  # but a course has so many points in any case
_START = datetime(2000, 1, 3, tzinfo=timezone.utc)  # a Monday
_DAY = 86400.0


@dataclass(frozen=True)
class Course:
    """How a metric goes in a simulated run: an exponential from ``start`` towards ``end``, with noise.

    The value at step s of S is ``end + (start - end) * exp(-5 * s / S)``, plus a normal deviate times
    ``noise * |start - end|``. The deviates come from a generator with a fixed seed: the same arguments give the same
    simulation.

    Attributes:
        start: the value at the beginning.
        end: the value that it comes close to.
        noise: the standard deviation of a measurement, as a share of the way.

    """

    start: float = 1.0
    end: float = 0.0
    noise: float = 0.02

    def __post_init__(self) -> None:
        """Check the numbers."""
        for word in ("start", "end", "noise"):
            value = getattr(self, word)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                msg = f"{word} of a Course must be a finite number, but got {value!r}"
                raise ConfigurationError(msg)

    def value(self, share: float, deviate: float) -> float:
        """Return the value after this share of the run, with this normal deviate."""
        way = self.start - self.end
        return self.end + way * math.exp(-5 * share) + deviate * self.noise * abs(way)


@dataclass(frozen=True)
class Point:
    """What is there right after a save, once the rules have been applied: ``size`` is in bytes."""

    step: int
    files: int
    size: int


@dataclass(frozen=True)
class Simulation:
    """What came out. Sizes are in bytes.

    Attributes:
        rules: the notation of the rules.
        steps: the length of the run.
        saves: how many checkpoints it writes.
        size: of one checkpoint.
        written: by all of them.
        points: what is there after a save, in the order of the run: after each one, or every few.
        peak: the point with the most files while a save goes on. A save is committed before anything is removed, so
            that there is one file more than the rules keep.
        kept: the decisions about what is there in the end, newest first.
        kept_steps: their steps, in the same order.
        stride: the most saves between two points; 1 but for very many checkpoints. The points are exact in any case
            where there is no budget, but the peak may then lie between them.
        seconds: how long the run takes, if the length of a step is known.
        metrics: the course of each metric.

    """

    rules: str
    steps: int
    saves: int
    size: int
    written: int
    points: tuple[Point, ...]
    peak: Point
    kept: tuple[Decision, ...]
    kept_steps: tuple[int, ...]
    stride: int = 1
    seconds: float | None = None
    metrics: Mapping[str, Course] = field(default_factory=dict)

    @property
    def end(self) -> Point:
        """What is there in the end."""
        return self.points[-1]

    @property
    def written_per_day(self) -> float | None:
        """The bytes that are written in a day of training, if the length of a step is known."""
        return None if not self.seconds else self.written / self.seconds * _DAY

    def at(self, many: int) -> list[Point]:
        """Return at most so many of the points, evenly spread over the run, the last one among them."""
        steps = [point.step for point in self.points]
        places = {bisect_right(steps, self.steps * number // many) - 1 for number in range(1, many + 1)}
        return [self.points[place] for place in sorted({*places, len(steps) - 1}) if place >= 0][-many:]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the keys are stable. Of the points at most 200."""
        return {
            "rules": self.rules,
            "steps": self.steps,
            "saves": self.saves,
            "size": self.size,
            "written": self.written,
            "written_per_day": self.written_per_day,
            "seconds": self.seconds,
            "stride": self.stride,
            "peak": vars(self.peak),
            "end": vars(self.end),
            "kept": [
                {"step": step, "rank": item.rank, "reason": item.reason, "rules": list(item.rules)}
                for step, item in zip(self.kept_steps, self.kept, strict=True)
            ],
            "points": [vars(point) for point in self.at(200)],
            "metrics": {name: vars(course) for name, course in self.metrics.items()},
        }


def simulate(  # noqa: PLR0913 - the facts of a run, one parameter each
    keep: Any,
    *,
    steps: int,
    every: int,
    size: int | str,
    epoch_steps: int | None = None,
    step_seconds: float | None = None,
    monitor: str | None = None,
    mode: str = "min",
    metrics: Mapping[str, Course] | None = None,
) -> Simulation:
    """Run a policy over a run that only counts: no training, no files, no torch.

    After each save the rules are applied, as a run applies them, so what is there at each time is what would be there.
    Pins, ``last``, and the files of exceptions and signals are left out.

    Args:
        keep: rules, or their notation: ``Latest(3) | EverySteps(10_000)`` or ``"Latest(3) | EverySteps(10_000)"``.
        steps: the length of the run in optimizer steps.
        every: the steps between two saves.
        size: of one checkpoint: bytes, or a text such as ``"14GB"``.
        epoch_steps: the steps of an epoch; without it the whole run is one.
        step_seconds: the seconds of a step; rules that speak of time need it.
        monitor: the metric that the run is about.
        mode: whether its lowest (``"min"``) or highest (``"max"``) value is best.
        metrics: how each metric goes. One that the rules rank by and that is not given improves from 1 to 0, or
            from 0 to 1 where the highest is best.

    Raises:
        ConfigurationError: for arguments that cannot be meant, and for rules of time without ``step_seconds``.

    """
    rules = rules_of(keep)
    run = _Course(
        whole_number("steps", steps, least=1),
        whole_number("every", every, least=1),
        parse_bytes("size", size),
        None if epoch_steps is None else whole_number("epoch_steps", epoch_steps, least=1),
        _checked_seconds(step_seconds, rules),
        _courses(rules, monitor, extreme("mode", mode), metrics or {}),
    )
    if run.saves < 1:
        msg = f"a run of {run.steps:,} steps that saves every {run.every:,} steps saves nothing: save more often"
        raise ConfigurationError(msg)
    if run.saves > _MOST_SAVES:
        msg = f"{run.saves:,} saves are more than the {_MOST_SAVES:,} that are simulated: save less often"
        raise ConfigurationError(msg)
    return _play(rules, run, monitor, mode)


@dataclass(frozen=True)
class _Course:
    """The run, without the rules."""

    steps: int
    every: int
    size: int
    epoch_steps: int | None
    step_seconds: float | None
    metrics: Mapping[str, Course]

    @property
    def saves(self) -> int:
        return self.steps // self.every

    def checkpoints(self) -> Iterator[Known]:
        """Yield what is saved, oldest first."""
        dice = random.Random(0)  # noqa: S311 - repeatable is what is wanted, not secret
        for number in range(1, self.saves + 1):
            step = number * self.every
            values = {name: course.value(step / self.steps, dice.gauss(0, 1)) for name, course in self.metrics.items()}
            epoch = (step - 1) // self.epoch_steps if self.epoch_steps is not None else 0
            yield Known(f"step={step}", step, epoch, number, values, self.time(step), self.size)

    def time(self, step: int) -> datetime:
        """Return when a step is done."""
        return _START + timedelta(seconds=step * (self.step_seconds or 0.0))


def _play(rules: tuple[Term, ...], run: _Course, monitor: str | None, mode: str) -> Simulation:
    """Save and forget, over and over."""
    there: list[Known] = []
    decisions: list[Decision] = []
    points: list[Point] = []
    peak = Point(0, 0, 0)
    waiting, stride, widest = 0, 1, 1
    for item in run.checkpoints():
        there.append(item)
        waiting += 1
        if waiting == 1:
            peak = _higher(peak, Point(item.step, len(there), len(there) * run.size))
        if waiting < stride and item.sequence < run.saves:
            continue
        decisions = plan(rules, there, run.time(item.step), monitor=monitor, mode=mode)
        there = [item for item, decision in zip(there, decisions, strict=True) if decision.keep]
        points.append(Point(item.step, len(there), len(there) * run.size))
        peak = _higher(peak, points[-1])
        waiting, stride = 0, 1 + min(run.saves * len(there) // _MOST_LOOKS, run.saves // _LEAST_POINTS)
        widest = max(widest, stride)
    kept = [decision for decision in decisions if decision.keep]
    return Simulation(
        rules=show_rules(rules),
        steps=run.steps,
        saves=run.saves,
        size=run.size,
        written=run.saves * run.size,
        points=tuple(points),
        peak=peak,
        kept=tuple(reversed(kept)),
        kept_steps=tuple(item.step for item in reversed(there)),
        stride=widest,
        seconds=None if run.step_seconds is None else run.steps * run.step_seconds,
        metrics=run.metrics,
    )


def _higher(one: Point, other: Point) -> Point:
    return other if other.files > one.files else one


def _checked_seconds(seconds: Any, rules: tuple[Term, ...]) -> float | None:
    if seconds is None:
        for rule in rules:
            if isinstance(rule, Newer) or (isinstance(rule, Thin) and (rule.hourly or rule.daily or rule.weekly)):
                msg = f"{rule} speaks of time: say how many seconds a step takes (step_seconds, --step-seconds)"
                raise ConfigurationError(msg)
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        msg = f"step_seconds must be a number of seconds above 0, but got {seconds!r}"
        raise ConfigurationError(msg)
    return float(seconds)


def _courses(rules: tuple[Term, ...], monitor: str | None, mode: str, given: Mapping[str, Course]) -> dict[str, Course]:
    """Return the course of every metric that is ranked by, and of those given."""
    sought = {} if monitor is None else {metric_name("monitor", monitor): mode}
    sought |= {rule.metric: rule.mode or "min" for rule in rules if isinstance(rule, Best) and rule.metric is not None}
    if any(isinstance(rule, Best) and rule.metric is None for rule in rules) and monitor is None:
        msg = "a Best(k) without a metric ranks by the monitored one: say which (monitor), or name one: Best(1, 'loss')"
        raise ConfigurationError(msg)
    falling, rising = Course(1.0, 0.0), Course(0.0, 1.0)
    return {name: falling if best == "min" else rising for name, best in sought.items()} | dict(given)
