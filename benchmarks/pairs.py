"""Runs of the same steps with saves and without, in turn.

What is lost is set against the runs without saves on both sides. A run is in its stride when the clock
starts (its last save has just been asked for) and stops in the same state, so that neither the beginning
nor the end is counted twice. No variant has more than one save in flight: the ones that would queue wait
for the one before.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import measure, report, usage
from benchmarks.report import Column, Rows
from benchmarks.saver import Saver, Variant
from benchmarks.states import Training

STEPS = 10
COLUMNS = (
    Column("lost", "lost %", 1, 100, quartiles=True),
    Column("stall", "stall ms/save", 1, 1e3),
    Column("committed", "saves made", 0),
    Column("asked", "asked for", 0),
    Column("memory", "extra memory x", 2),
    Column("durable", "durable"),
)


@dataclass
class Lost:
    """What a variant's runs have shown.

    Attributes:
        with_saves: seconds of each run.
        stalls: seconds of standing still for each save, run by run.
        asked: saves asked for, of all runs.
        committed: saves that were completed.
        memory: bytes beyond those of training alone, at their highest.

    """

    with_saves: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    asked: int = 0
    committed: int = 0
    memory: int = 0


def table(  # noqa: PLR0913 - a measurement has as many sides
    training: Training,
    folder: str,
    variants: Sequence[Variant],
    *,
    every: int,
    rounds: int,
    step: float,
) -> dict[str, object]:
    """Measure every variant at one distance of saves."""
    results = {variant.name: Lost() for variant in variants}
    # The runs in the order in which they were made: seconds, and whose they are ("" for those without saves).
    runs: list[tuple[str, float]] = [("", without(training))]
    for number in range(rounds):
        for variant in measure.turn(variants, number):
            seconds = with_saves(variant, training, folder, results[variant.name], every=every)
            runs += [(variant.name, seconds), ("", without(training))]
    lost = losses(runs)
    rows: Rows = {
        variant.name: row(variant, results[variant.name], lost[variant.name], training) for variant in variants
    }
    title = f"throughput lost, {training.nbytes / 1e6:.0f} MB, a step of {step * 1e3:.0f} ms, a save every {every}"
    report.show(f"{title}, {rounds} pairs", rows, COLUMNS)
    base = measure.summary([seconds / STEPS for name, seconds in runs if not name])
    return {"bytes": training.nbytes, "every": every, "step_seconds": base, "rows": rows}


def losses(runs: Sequence[tuple[str, float]]) -> dict[str, list[float]]:
    """Set each run with saves against the runs without that are its neighbours."""
    lost: dict[str, list[float]] = {}
    for (_, before), (name, seconds), (_, after) in zip(runs[::2], runs[1::2], runs[2::2], strict=False):
        base = (before + after) / 2
        lost.setdefault(name, []).append((seconds - base) / base)
    return lost


def row(variant: Variant, result: Lost, lost: list[float], training: Training) -> dict[str, object]:
    """Make a row of one variant's runs."""
    return {
        "lost": measure.summary(lost),
        "stall": measure.summary(result.stalls),
        "asked": result.asked,
        "committed": result.committed,
        "memory": result.memory / training.nbytes,
        "durable": variant.durable,
    }


def without(training: Training) -> float:
    """Time steps without saves."""
    training.step()
    training.synchronize()
    start = time.perf_counter()
    for _ in range(STEPS):
        training.step()
    training.synchronize()
    return time.perf_counter() - start


def with_saves(variant: Variant, training: Training, folder: str, result: Lost, *, every: int) -> float:
    """Time the same steps with saves; the opening and the first saves are not timed."""
    own = fresh(training) if variant.own_training else training
    usage.give_back()
    usage.reset_peak()
    own.step()
    alone = usage.peak()
    place = tempfile.mkdtemp(dir=folder)
    saver = variant.start(own, place, retain=True)
    run(own, saver, variant.warmups + 1, 1)
    start = time.perf_counter()
    result.stalls.append(run(own, saver, STEPS, every))
    own.synchronize()
    seconds = time.perf_counter() - start
    saver.wait()
    result.asked += saver.asked
    result.committed += saver.committed
    result.memory = max(result.memory, usage.peak() - alone)
    saver.close()
    shutil.rmtree(place)
    measure.settle()
    return seconds


def run(training: Training, saver: Saver, steps: int, every: int) -> float:
    """Train, with a save after every so many steps; return how long training stood still for each.

    As many fences as saves fall into it: the first is that of the save before its beginning.
    """
    still = 0.0
    for number in range(1, steps + 1):
        training.forward_backward()
        start = time.perf_counter()
        saver.fence()
        still += time.perf_counter() - start
        training.optimizer_step()
        if number % every == 0:
            training.synchronize()
            start = time.perf_counter()
            saver.save()
            still += time.perf_counter() - start
    return still / (steps // every)


def fresh(training: Training) -> Training:
    """Return another training of the same size and batch."""
    return Training(training.size, str(training.device), len(training.batch))
