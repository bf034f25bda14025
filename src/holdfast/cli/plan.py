"""``holdfast plan``: what rules would keep of a run that has not been run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import timedelta

from holdfast.cli.arguments import add_json
from holdfast.cli.output import print_json, print_table
from holdfast.errors import EXIT_OK, ConfigurationError, printable
from holdfast.front.simulation import Course, Point, Simulation, simulate
from holdfast.front.sizes import amount

DESCRIPTION = """Count what rules would keep of a run, without running it: files and bytes over time, the peak, and
what is written in total.

The rules:
  Latest(n)  Best(k, 'metric', mode='max')  EverySteps(n)  EveryEpochs(n)  Thin(hourly=24, daily=7, weekly=-1)
  Thin(steps={1000: 10, 10000: -1})  Newer('7d')  All()  Within('200GB')
joined by |: what any of them keeps is kept, then Within takes back the oldest. The newest stays whatever the rules
say, and the best."""
EXAMPLES = """
holdfast plan --rules "Latest(3) | EverySteps(10000) | Within('200GB')" --steps 1e6 --every 500 --size 14GB
holdfast plan --rules "Thin(hourly=24, daily=7)" --steps 1e6 --every 500 --size 14GB --step-seconds 0.8
"""
EXIT_CODES = "exit codes: 0 simulated, 2 wrong usage"

_ROWS = 20
_WIDTH = 40  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_COURSE_PARTS = (2, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument(
        "--rules",
        "--keep",
        dest="rules",
        required=True,
        metavar="RULES",
        help="what to keep, such as \"Latest(3) | Best(2, 'val_loss') | EverySteps(10000) | Within('200GB')\"",
    )
    parser.add_argument("--steps", required=True, type=count, metavar="N", help="the length of the run, such as 1e6")
    parser.add_argument("--every", required=True, type=count, metavar="N", help="the steps between two saves")
    parser.add_argument("--size", required=True, metavar="BYTES", help="of one checkpoint, such as 14GB")
    parser.add_argument("--epoch-steps", type=count, metavar="N", help="the steps of an epoch")
    parser.add_argument("--step-seconds", type=float, metavar="S", help="of one step; rules of time need it")
    parser.add_argument("--monitor", metavar="NAME", help="the metric that the run is about: its best is always kept")
    parser.add_argument("--mode", choices=("min", "max"), default="min", help="which value of it is best (min)")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME=START:END[:NOISE]",
        help="how a metric goes: an exponential from START towards END, with noise (0.02 of the way), the same on each "
        "call; else one that is ranked by goes from 1 to 0, or from 0 to 1 where the highest is best",
    )
    add_json(parser)


def count(text: str) -> int:
    """Return a whole number of steps; ``1e6`` is one."""
    try:
        value = float(text.replace("_", "").replace(",", ""))
        number = int(value) if value.is_integer() else 0
    except (ValueError, OverflowError):
        number = 0
    if number < 1:
        msg = f"{text!r} is no whole number of steps above 0"
        raise argparse.ArgumentTypeError(msg)
    return number


def run(options: argparse.Namespace) -> int:
    """Simulate rules, and show what they keep."""
    result = simulate(
        options.rules,
        steps=options.steps,
        every=options.every,
        size=options.size,
        epoch_steps=options.epoch_steps,
        step_seconds=options.step_seconds,
        monitor=options.monitor,
        mode=options.mode,
        metrics=dict(map(_course, options.metric)),
    )
    if options.as_json:
        print_json(result.as_dict())
        return EXIT_OK
    for line in _summary(result):
        print(printable(line))
    print()
    print_table(("step", "files", "bytes", ""), _over_time(result))
    print()
    print_table(("kept at the end", "because"), list(_at_the_end(result)))
    return EXIT_OK


def _course(text: str) -> tuple[str, Course]:
    name, _, numbers = text.rpartition("=")
    parts = numbers.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if not name or len(values) not in _COURSE_PARTS:
        msg = f"--metric takes NAME=START:END or NAME=START:END:NOISE, such as val_loss=2.5:0.4, but got {text!r}"
        raise ConfigurationError(msg)
    return name, Course(*values)


def _summary(result: Simulation) -> Iterator[str]:
    yield f"{result.rules}: {result.saves:,} saves of {amount(result.size)} in {result.steps:,} steps"
    per_day = result.written_per_day
    pace = ""
    if per_day is not None and result.seconds is not None:
        pace = f" in {timedelta(seconds=round(result.seconds))}, {amount(round(per_day))} a day"
    yield f"written: {amount(result.written)}{pace}"
    end, peak = result.end, result.peak
    yield f"at the end: {_files(end)}"
    yield f"at most: {_files(peak)}, at step {peak.step:,}, while a save goes on: it is committed before anything goes"
    if result.stride > 1:
        yield f"the rules were applied after every {result.stride} saves at most, so the highest may lie in between"
    for name, course in sorted(result.metrics.items()):
        yield f"simulated: {name} from {course.start:g} towards {course.end:g}, noise {course.noise:g}"


def _files(point: Point) -> str:
    return f"{point.files:,} file{'' if point.files == 1 else 's'}, {amount(point.size)}"


def _over_time(result: Simulation) -> list[tuple[str, ...]]:
    points = result.at(_ROWS)
    most = max((point.size for point in points), default=0)
    blocks = sys.stdout.isatty() and _can_show(_EIGHTHS)
    return [
        (f"{point.step:,}", f"{point.files:,}", amount(point.size), bar(point.size, most, blocks=blocks))
        for point in points
    ]


def _can_show(text: str) -> bool:
    """Tell whether the terminal's encoding has these letters."""
    try:
        text.encode(sys.stdout.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bar(value: int, most: int, *, blocks: bool) -> str:
    """Return a bar as long as the value's share of the most: of blocks in eighths, or of ``#``."""
    eighths = value * _WIDTH * 8 // most if most else 0
    if not blocks:
        return "#" * ((eighths + 4) // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _at_the_end(result: Simulation) -> Iterator[tuple[str, str]]:
    pairs = [(f"step {step:,}", decision.reason) for step, decision in zip(result.kept_steps, result.kept, strict=True)]
    left_out = len(pairs) - _ROWS
    if left_out <= 1:
        yield from pairs
        return
    yield from pairs[: _ROWS // 2]
    yield f"... {left_out} more", ""
    yield from pairs[len(pairs) - _ROWS // 2 :]
