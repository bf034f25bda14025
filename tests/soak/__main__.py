"""Train for an hour with a save every second, be killed every few seconds, on a small disk that fills and empties.

``python -m tests.soak --minutes 60``, or ``make soak MINUTES=60``: prints a line for each life, writes
``benchmarks/soak.md`` and ``benchmarks/results/soak.json``, and ends with 1 if anything was wrong.
Needs root, for the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time

import torch

from tests.soak.checks import Books, look
from tests.soak.disk import NoDiskError, SmallDisk
from tests.soak.lives import draw, live
from tests.soak.report import Tally, leaks, write

LEAVES = (0, 120_000, 300_000, 700_000)  # bytes left on a full disk: no file, a piece of one, most of one, one


def soak(minutes, *, every=1.0, long=60.0, disk_mb=16, seed=0, report=None, tell=print):
    """Live until the time is over; return what was counted, and what was wrong."""
    torch.set_num_threads(1)
    dice = random.Random(seed)  # noqa: S311 - repeatable
    books, tally = Books(), Tally()
    settings = {"minutes": minutes, "every": every, "long": long, "disk_mb": disk_mb, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch, SmallDisk(scratch, disk_mb) as disk:
        folder = os.path.join(disk.folder, "run")
        begun, number = time.monotonic(), 0
        while time.monotonic() - begun < minutes * 60:
            plan = draw(dice, number, every, long)
            life = live(plan, folder, disk, scratch, every=every, leave=dice.choice(LEAVES))
            books.enter(life)
            found = look(folder, books, scratch)
            books.judge(found)
            tally.add(life, found, disk)
            disk.empty()
            number += 1
            tell(f"{number}: {plan.kind}, {life.seconds:.1f} s, steps {found['steps']}, {len(books.problems)} problems")
            tally.minutes = (time.monotonic() - begun) / 60
        result = tally.result(books.problems, settings)
        result["problems"] = [*books.problems, *leaks(result)]
        if report:
            write(result, report, disk.folder)
    return result


def main():
    """Read the options, soak, and say how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between saves")
    parser.add_argument("--long", type=float, default=60.0, help="seconds of a life that is not killed")
    parser.add_argument("--disk-mb", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", default="benchmarks", help="folder for soak.md and results/soak.json")
    options = parser.parse_args()
    try:
        result = soak(tell=lambda text: print(text, flush=True), **vars(options))  # noqa: T201 - a command prints
    except NoDiskError as error:
        sys.exit(str(error))
    print("\n".join(result["problems"]) or "nothing was lost, nothing leaked")  # noqa: T201
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
