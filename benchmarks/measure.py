"""Rounds in which every variant has its turn, and what is made of their figures."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import usage
from benchmarks.saver import Saver, Variant
from benchmarks.states import Training

Summary = dict[str, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One save.

    Attributes:
        stall: seconds for which training stood still.
        complete: seconds from its beginning until it was complete.
        cpu: CPU seconds of this process and its children until then; None while training runs beside it.

    """

    stall: float
    complete: float
    cpu: float | None


@dataclass
class Series:
    """All saves of a variant.

    Attributes:
        samples: one for each measured save, in the order of the rounds.
        first: the stall of the first save, with memory cold, each time it was opened.
        memory: bytes beyond what there was before it was opened, at their highest.
        process: bytes that its child processes hold for themselves.

    """

    samples: list[Sample] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    memory: int = 0
    process: int = 0

    def column(self, name: str) -> list[float]:
        """Return one figure of every sample; none if it was not measured."""
        values = [getattr(sample, name) for sample in self.samples]
        return [] if None in values else values


class Open:
    """A variant that is open and warm, and what its opening has shown."""

    def __init__(
        self, variant: Variant, training: Training, folder: str, series: Series, *, retain: bool = False
    ) -> None:
        self.variant, self.training, self.retain = variant, training, retain
        self.folder = tempfile.mkdtemp(dir=folder)
        usage.give_back()
        before = usage.resident()
        self.saver: Saver = variant.start(training, self.folder, retain=retain)
        for number in range(variant.warmups):
            sample = self.take()
            if number == 0:
                series.first.append(sample.stall)
            series.memory = max(series.memory, usage.peak() - before)
            series.process = max(series.process, usage.children_memory())

    def take(self, busy: Callable[[], None] | None = None) -> Sample:
        """Save once, and clean up; ``busy`` is the forward and backward that the copy runs beside."""
        usage.reset_peak()
        used, start = usage.cpu_seconds(), time.perf_counter()
        self.saver.save()
        self.training.synchronize()
        stall = time.perf_counter() - start
        if self.variant.overlapped and busy is not None:
            busy()
            self.training.synchronize()
        paused = time.perf_counter()
        self.saver.fence()
        stall += time.perf_counter() - paused
        self.saver.wait()
        complete = time.perf_counter() - start
        mixed = self.variant.overlapped and busy is not None  # the training's CPU time is in it
        cpu = None if mixed else usage.cpu_seconds() - used
        self.training.optimizer.zero_grad()
        if not self.retain:
            self.saver.clean()
        settle()
        return Sample(stall, complete, cpu)

    def close(self) -> None:
        """End it, and remove its folder."""
        self.saver.close()
        shutil.rmtree(self.folder)
        del self.saver
        settle()


def interleave(  # noqa: PLR0913 - a measurement has as many sides
    variants: Sequence[Variant],
    training: Training,
    folder: str,
    rounds: int,
    *,
    keep_open: bool,
    busy: Callable[[], None] | None = None,
) -> dict[str, Series]:
    """Measure one save of every variant in each round.

    Args:
        variants: in the order of the table.
        training: whose state is saved.
        folder: where.
        rounds: how many samples each gets.
        keep_open: leave all open from round to round. For a large state, each is opened and warmed
            anew in its turn, so that only one at a time holds memory.
        busy: what the overlapped variants copy beside.

    """
    table = {variant.name: Series() for variant in variants}
    opened: dict[str, Open] = {}
    for number in range(rounds):
        for variant in turn(variants, number):
            current = opened.pop(variant.name, None) or Open(variant, training, folder, table[variant.name])
            table[variant.name].samples.append(current.take(busy))
            if keep_open and number < rounds - 1:
                opened[variant.name] = current
            else:
                current.close()
    return table


def turn(items: Sequence[T], number: int) -> list[T]:
    """Return the items in the order of a round: begun elsewhere each time, every other time backwards."""
    at = number % len(items)
    order = [*items[at:], *items[:at]]
    return order[::-1] if number % 2 else order


def settle() -> None:
    """Let the disk finish what others have left, so that nobody pays for it."""
    os.sync()


def summary(values: Sequence[float]) -> Summary:
    """Return median and quartiles."""
    if len(values) == 1:
        values = [*values, *values]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high}


def ratios(values: Sequence[float], base: Sequence[float]) -> Summary:
    """Return the summary of the ratios round by round: what one round suffered, both did."""
    return summary([value / other for value, other in zip(values, base, strict=True)])


@contextlib.contextmanager
def workplace(folder: str) -> Iterator[str]:
    """Make a folder that is gone afterwards, on the filesystem to be measured."""
    os.makedirs(folder, exist_ok=True)
    path = tempfile.mkdtemp(prefix="bench-", dir=folder)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
