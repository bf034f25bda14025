"""How many faults of each kind the tests have really made: shown at the end of a run."""

from __future__ import annotations

import collections

COUNTS: collections.Counter[str] = collections.Counter()


def count(kind, n=1):
    """Count so many of a kind."""
    COUNTS[kind] += n
