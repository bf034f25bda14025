"""Why the two classes differ: the fewest rows of the contract that turn one outcome into the other."""

from __future__ import annotations

from itertools import combinations

from tests.parity.configurations import Configuration
from tests.parity.oracle import predict
from tests.parity.rows import ALL, NONE, Row


def explanation(config: Configuration) -> frozenset[Row]:
    """Return the smallest set of rows with which Lightning's rules give our outcome; none if they are equal."""
    ours = predict(config, ALL)
    if predict(config, NONE) == ours:
        return NONE
    return next(
        frozenset(rows)
        for size in range(1, len(ALL) + 1)
        for rows in combinations(Row, size)
        if predict(config, frozenset(rows)) == ours
    )
