"""Kill each peer at every system call that touches its checkpoints, flip their bits, and count what is lost.

``python -m benchmarks.crash``, or ``make crash-peers``: writes ``benchmarks/crash.md`` and
``benchmarks/results/crash.json``. Linux on x86-64.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.crash import judging, peers
from benchmarks.crash.page import page
from benchmarks.machine import describe
from holdfast.testing.kills import READING, Ended, Forks, Point, can_trace

MODULE = "benchmarks.crash.peers"
FLIPS = 500


def strike(forks: Forks, name: str, scenario: str, folder: str) -> Counter[str]:
    """Kill fresh runs of a scenario at every call that is no read; return what was counted."""
    whole = os.path.join(folder, "whole")
    points = forks.points(f"{MODULE}:run", name, scenario, whole, watch=whole)
    total: Counter[str] = Counter()
    for point in points:
        if point.call not in READING:
            total += _strike_one(forks, name, scenario, os.path.join(folder, "struck"), point)
    shutil.rmtree(whole)
    return total


def _strike_one(forks: Forks, name: str, scenario: str, folder: str, point: Point) -> Counter[str]:
    for _ in range(3):  # threads may make a call fewer
        ended = forks.run(f"{MODULE}:run", name, scenario, folder, watch=folder, at=point)
        seen = judging.found(_said(forks.run(f"{MODULE}:inspect", name, folder)))
        shutil.rmtree(folder, ignore_errors=True)
        if ended.reached:
            return judging.judge(scenario, ended.said, seen)
    return Counter({"not reached": 1})


def _said(ended: Ended) -> list[Any]:
    return [item for item in ended.said if "path" in item and "raised" not in item]


def flips(forks: Forks, name: str, folder: str) -> Counter[str]:
    """Flip bits of a small checkpoint; return how the loads ended."""
    made = forks.run(f"{MODULE}:save_small", name, os.path.join(folder, "small"))
    ended = forks.run(f"{MODULE}:flip", name, made.said[-1], FLIPS, limit=600)
    shutil.rmtree(os.path.join(folder, "small"))
    return Counter(item for item in ended.said if isinstance(item, str)) + Counter(
        {"ended the process": ended.code < 0}
    )


def measure(folder: str, names: list[str]) -> dict[str, Any]:
    """Put every peer through everything."""
    rows: dict[str, Any] = {}
    with Forks(MODULE, warm=f"{MODULE}:warm") as forks:
        for name in names:
            kills = {scenario: dict(strike(forks, name, scenario, folder)) for scenario in peers.SCENARIOS}
            rows[name] = {"kills": kills, "flips": dict(flips(forks, name, folder))}
            print(name, json.dumps(rows[name]), flush=True)
    return rows


def main() -> None:
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.crash")
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None)  # noqa: S108
    parser.add_argument("--only", help="the peers whose names have this in them; nothing is written")
    options = parser.parse_args()
    if not can_trace():
        sys.exit("this machine lets no process trace its children: Linux on x86-64 is needed, and ptrace allowed")
    names = [name for name in peers.present() if options.only is None or options.only in name]
    with tempfile.TemporaryDirectory(prefix="crash-", dir=options.folder) as folder:
        result = {"table": "crash", **describe(folder), "peers": measure(folder, names)}
    if options.only is None:
        home = Path(__file__).parent.parent
        (home / "results" / "crash.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (home / "crash.md").write_text(page(result), encoding="utf-8")


if __name__ == "__main__":
    main()
