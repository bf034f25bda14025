"""How many points, states, cuts a run has covered: counted where they are checked, told at the end of the run.

Under pytest-xdist each worker counts, and its numbers go to the one process that tells them.
"""

from __future__ import annotations

import collections

_counted = collections.Counter()


def count(what, number=1):
    """Count what was covered; nothing covered is no test."""
    assert number > 0, f"no {what}"
    _counted[what] += number


def hand_over(output):
    """In a worker, at its end."""
    output["covered"] = dict(_counted)


def take(output):
    """In the process that tells, of a worker that has ended."""
    _counted.update(output.get("covered", {}))


def lines():
    """What was covered, one kind a line."""
    return [f"{number:,} {what}" for what, number in sorted(_counted.items())]
