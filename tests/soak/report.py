"""The figures of a soak: counted on the way, written as JSON and as a page."""

from __future__ import annotations

import collections
import json
import os

from benchmarks.machine import describe
from tests.soak.watch import growth

SETTLED = 5.0  # seconds after which a life has loaded and touched all that it needs


class Tally:
    """Counts over all lives."""

    def __init__(self):
        self.kinds = collections.Counter()
        self.counts = collections.Counter()
        self.most = collections.Counter()
        self.grown = []
        self.disk = []
        self.minutes = 0.0

    def add(self, life, found, disk):
        """Count one life and what it left."""
        self.kinds[life.plan.kind] += 1
        self.counts["steps"] += len(life.all("step"))
        self.counts["acknowledged saves"] += len(life.all("acknowledged")) + len(life.all("closed"))
        self.counts["failed saves, each with a warning"] += len(life.all("warned"))
        self.counts["files loaded and compared"] += found["files"] - found["leftovers"]
        self.counts["unfinished files found, and removed by the next life"] += found["leftovers"]
        self.most["files"] = max(self.most["files"], found["files"])
        self.most["unfinished files"] = max(self.most["unfinished files"], found["leftovers"])
        for name in ("memory", "threads", "descriptors"):
            self.most[name] = max([self.most[name], *(getattr(item, name) for item in life.samples)])
        if life.plan.kind == "long":
            grown = growth(life.samples, SETTLED)
            self.grown += [grown] if grown else []
        self.disk.append((disk.used, disk.inodes))

    def result(self, problems, settings):
        """All of it as one value."""
        third = max(1, len(self.disk) // 3)
        used = [
            max(item[place] for item in part) for part in (self.disk[:third], self.disk[-third:]) for place in (0, 1)
        ]
        return {
            "minutes": round(self.minutes, 1),
            "settings": settings,
            "lives": sum(self.kinds.values()),
            "kinds": dict(sorted(self.kinds.items())),
            "counts": dict(self.counts),
            "most": dict(self.most),
            "grown_in_long_lives": self.grown,
            "disk": dict(zip(("bytes_first", "inodes_first", "bytes_last", "inodes_last"), used, strict=True)),
            "problems": problems,
        }


def leaks(result):
    """What grew, in words: memory and descriptors of the lives that lasted, bytes and files of the disk over all."""
    found = []
    limits = {"memory": 4096, "threads": 0, "descriptors": 0}
    for name, limit in limits.items():
        worst = max((item[name] for item in result["grown_in_long_lives"]), default=0)
        if worst > limit:
            found.append(f"{name} grew by {worst} within one life")
    disk = result["disk"]
    if disk["inodes_last"] > disk["inodes_first"] + 1:
        found.append(
            f"files on the disk: {disk['inodes_first']} at most in the first third, {disk['inodes_last']} later"
        )
    if disk["bytes_last"] > disk["bytes_first"] * 1.2:
        found.append(f"bytes on the disk: {disk['bytes_first']} at most in the first third, {disk['bytes_last']} later")
    return found


def write(result, folder, place):
    """Write the result as JSON, and as a page for people."""
    full = {"table": "soak", **describe(place), **result}
    os.makedirs(os.path.join(folder, "results"), exist_ok=True)
    with open(os.path.join(folder, "results", "soak.json"), "w") as file:
        file.write(json.dumps(full, indent=1) + "\n")
    with open(os.path.join(folder, "soak.md"), "w") as file:
        file.write(page(full))


def page(result):
    """What people read."""
    machine, settings = result["machine"], result["settings"]
    command = f"`make soak MINUTES={settings['minutes']:g}`"
    rows = [
        ("minutes", f"{result['minutes']:g}"),
        ("lives", result["lives"]),
        *((f"of these: {_KINDS.get(kind, kind)}", count) for kind, count in result["kinds"].items()),
        *result["counts"].items(),
        ("**acknowledged and lost, damaged, leaked, or otherwise wrong**", f"**{len(result['problems'])}**"),
        *_held(result),
    ]
    lines = [
        "# Soak",
        "",
        f"{command}: a training with a save every {settings['every']:g} s, on an ext4 of",
        f"{settings['disk_mb']} MB that fills and empties, killed every few seconds and started again. After each life",
        "every file is verified, loaded and compared, to the bit, with what the training had at that step; each life",
        "must resume from the newest; the best three of all that was ever acknowledged must be there.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}.",
        "",
        "| | |",
        "| --- | ---: |",
        *(f"| {name} | {value} |" for name, value in rows),
        "",
        *(f"- {problem}" for problem in result["problems"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _held(result):
    """The rows of what the folder, the processes and the disk held, and of what they gained."""
    most, disk, grown = result["most"], result["disk"], result["grown_in_long_lives"]
    worst = {name: max((item[name] for item in grown), default="-") for name in ("memory", "threads", "descriptors")}
    lasted = f"worst growth within the {len(grown)} lives of {result['settings']['long']:g} s"
    return [
        ("most files in the folder after a life", most.get("files", 0)),
        ("most unfinished files after a life", most.get("unfinished files", 0)),
        ("most descriptors of a life", most.get("descriptors", 0)),
        ("most threads of a life", most.get("threads", 0)),
        (f"{lasted}: memory, kB", worst["memory"]),
        (f"{lasted}: descriptors", worst["descriptors"]),
        (f"{lasted}: threads", worst["threads"]),
        ("most bytes on the disk, first and last third", f"{disk['bytes_first']}, {disk['bytes_last']}"),
        ("most files on the disk, first and last third", f"{disk['inodes_first']}, {disk['inodes_last']}"),
    ]


_KINDS = {
    "kill": "SIGKILL at any moment",
    "save": "SIGKILL amid a save",
    "term": "SIGTERM",
    "full": "disk filled, emptied, then SIGKILL",
    "full and kill": "SIGKILL while the disk is full",
    "full before": "started on a full disk, emptied, then SIGKILL",
    "long": "ended by themselves",
}
