"""What a process holds while it lives."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Seconds since its birth, memory of its own in kB, threads, open descriptors."""

    age: float
    memory: int
    threads: int
    descriptors: int


def sample(process, age):
    """Look at a process; None if it is gone."""
    try:
        with open(f"/proc/{process}/status") as file:
            fields = dict(line.rstrip("\n").split(":", 1) for line in file)
        descriptors = len(os.listdir(f"/proc/{process}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    if "RssAnon" not in fields:  # it has ended, and nobody has asked how
        return None
    return Sample(age, int(fields["RssAnon"].split()[0]), int(fields["Threads"]), descriptors)


def growth(samples, settled):
    """What a life has gained after it had settled, from its first third to its last.

    Of memory the highest counts. Of threads and descriptors the lowest, which a leak raises: a save that is on
    its way has some of its own.
    """
    later = [item for item in samples if item.age >= settled]
    third = len(later) // 3
    if not third:
        return None
    first, last = later[:third], later[-third:]
    return {
        name: extreme(getattr(item, name) for item in last) - extreme(getattr(item, name) for item in first)
        for name, extreme in (("memory", max), ("threads", min), ("descriptors", min))
    }
