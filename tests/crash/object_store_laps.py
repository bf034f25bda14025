"""Trainings to an object store that are killed, with its server, at random requests: how many laps, what was lost.

``python -m tests.crash.object_store_laps --laps 200``, or ``make crash-s3 LAPS=200``; ``--server ceph`` for the other
server. Says each lap, with its seed where something is wrong, then a table; ends with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import os
import random
import secrets
import sys
import tempfile
import time

import torch

from tests.crash.object_store_books import Books, expected, look
from tests.crash.object_store_lives import Plan, draw, live
from tests.crash.object_store_training import LARGE, LETTERS, PART
from tests.support.ceph import Ceph
from tests.support.s3 import Rclone

SERVERS = {"rclone": Rclone, "ceph": Ceph}
SIZES = {"one put": 64, "three parts": LARGE}
HOMES = ("bucket", "mirror")
LAST = 6  # steps of the last life, which nothing happens to
NAMES = {letter: name for name, letter in LETTERS.items()}


class Tally:
    """What was done, and what was found."""

    def __init__(self):
        self.laps = collections.Counter()
        self.requests = collections.Counter()
        self.counts = collections.Counter()
        self.problems = []

    def add(self, home, size, life):
        """Count a life."""
        self.laps[home, size, life.plan.kind if life.struck else "nothing, it ended before"] += 1
        if life.struck:
            self.requests[NAMES.get(life.struck, "a look")] += 1
        self.counts["saves that were acknowledged"] += len(life.all("acknowledged"))
        self.counts["dead uploads that were aborted"] += len(life.all("aborted"))
        self.counts["saves that failed and were told"] += len(life.all("warned"))
        self.counts["lives that the server's death ended with an error of ours"] += len(life.all("error"))

    def table(self):
        """As Markdown."""
        kinds = sorted({kind for _, _, kind in self.laps})
        lines = ["| what was killed | " + " | ".join(f"{home}, {size}" for home in HOMES for size in SIZES) + " |"]
        lines.append("| --- " * (1 + len(HOMES) * len(SIZES)) + "|")
        for kind in kinds:
            cells = [str(self.laps[home, size, kind]) for home in HOMES for size in SIZES]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
        at = ", ".join(f"{name} {number}" for name, number in self.requests.most_common())
        lines += ["", f"{sum(self.laps.values())} laps; struck at: {at}"]
        return "\n".join([*lines, *(f"{number} {what}" for what, number in self.counts.items())])


def run(dice, server, folder, tally, *, home, size, laps, tell=print):
    """One run: that many lives which are struck, then one that is not; everything is looked at after each."""
    name, ballast = secrets.token_hex(4), SIZES[size]
    url = server.url(f"laps/{name}")
    place = url if home == "bucket" else os.path.join(folder, name)
    words = {} if home == "bucket" else {"mirror": url}
    order = {"place": place, "words": words, "bucket": server.url(), "ballast": ballast}
    order["said"] = os.path.join(folder, f"{name}.said")
    books, begun = Books(ballast), 0
    expected(ballast, 0)
    drawing = {"large": 4 * ballast > PART, "mirrored": home == "mirror", "disk": hasattr(server, "kill_disk")}
    for number in range(laps + 1):
        last = number == laps
        plan = Plan() if last else draw(dice, **drawing)
        order["options"] = {**server.options, "patience": plan.patience}
        order |= {"until": books.newest + LAST} if last else {}
        began, unfinished = time.monotonic(), server.unfinished()
        life = live(plan, order, server)
        books.enter(life)
        found = look(order, books, gone=plan.kind == "machine", over=last and life.code == 0)
        books.judge(found, server_lost=max(0, server.unfinished() - unfinished))
        if not last:
            tally.add(home, size, life)
        elif life.all("closed") != [order["until"]] or not all(life.all("settled")):
            books.problems.append(f"the last life did not come to its end: {life.said[-3:]}")
        how = f"{plan.kind or 'nothing'} at {NAMES.get(life.struck, life.struck)}"
        tell(f"{home}, {size}: {how}, {time.monotonic() - began:.1f} s, there {found['there']['all']}", flush=True)
        for problem in books.problems[begun:]:
            tell(f"   PROBLEM: {problem}\n   {plan}\n   {str(life.said[-6:])[-1500:]}", flush=True)
        begun = len(books.problems)
    tally.problems += books.problems
    tally.counts["objects that the server lost while it replaced them"] += books.lost


def laps(server, folder, number, *, seed, homes=HOMES, sizes=(*SIZES,), minutes=1e9, tell=print):
    """Run laps until there were so many, or the time is over; return the tally. Each run tells its seed."""
    torch.set_num_threads(1)
    importlib.import_module("s3fs")  # once, before the lives that need it are forked
    tally, lap, until = Tally(), 0, time.monotonic() + 60 * minutes
    while sum(tally.laps.values()) < number and time.monotonic() < until:
        dice = random.Random(f"{seed}-{lap}")  # noqa: S311 - repeatable
        home, size = dice.choice(homes), dice.choice(sizes)
        left = number - sum(tally.laps.values())
        tell(f"run {seed}-{lap}", flush=True)
        run(dice, server, folder, tally, home=home, size=size, laps=min(left, dice.randint(2, 6)), tell=tell)
        lap += 1
    return tally


def main():
    """Read the options, run the laps, and say how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.crash.object_store_laps")
    parser.add_argument("--laps", type=int, default=100)
    parser.add_argument("--server", choices=sorted(SERVERS), default="rclone")
    parser.add_argument("--seed", default=secrets.token_hex(3))
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--home", choices=HOMES, action="append")
    parser.add_argument("--size", choices=sorted(SIZES), action="append")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laps-") as folder:
        os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
        with contextlib.closing(SERVERS[said.server](os.path.join(folder, "server"))) as server:
            server.start()
            words = {"homes": said.home or HOMES, "sizes": said.size or (*SIZES,), "minutes": said.minutes}
            tally = laps(server, folder, said.laps, seed=said.seed, **words)
    print(tally.table(), f"{len(tally.problems)} problems", sep="\n")  # noqa: T201 - the answer
    return bool(tally.problems)


if __name__ == "__main__":
    sys.exit(main())
