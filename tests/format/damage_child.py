"""A reader with little memory: surveys the damages of a file and says what became of them.

As a process of its own, so that a hang, a crash or an allocation is seen from outside.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys

import holdfast
from holdfast.testing.damage import damages, survey
from tests.support.files import content
from tests.support.states import same

ROOM = 512 << 20  # bytes of address space that may come to what torch takes: the readers' threads and buffers


def main(whole, other, path, share):
    data = content(whole)
    holdfast.load(whole)  # what is made once is there
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (holdfast.verify, holdfast.load):
        counts = survey(data, path, read, itertools.islice(damages(data, content(other)), 0, None, int(share)), same)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        told = {"tried": counts.tried, "refused": counts.refused, "silent": [item.what for item in counts.silent]}
        sys.stdout.write(json.dumps({**told, "harmless": counts.harmless, "peak": peak}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
