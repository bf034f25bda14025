"""Numbers and tables for people."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest

from holdfast.cli.text import age, number, table
from holdfast.front.sizes import amount

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000_000, "1.5 GB"),
        (2 * 10**12, "2.0 TB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_amounts(size, shown):
    """Bytes are shown in decimal units."""
    assert amount(size) == shown


@pytest.mark.parametrize(
    ("ago", "shown"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (47 * 3600, "47 h ago"),
        (49 * 3600, "2 days ago"),
        (-5, "0 s ago"),
    ],
)
def test_ages(ago, shown):
    """Times are shown as how long ago they were; the future, by a clock that differs, as just now."""
    assert age((NOW - timedelta(seconds=ago)).isoformat(), NOW) == shown


@pytest.mark.parametrize("time", ["", "yesterday", "2026-01-02", None, 5])
def test_what_is_no_time(time):
    """What is no time with a zone has no age, and is no error."""
    assert age(time, NOW) == ""


def test_numbers():
    """Metrics are shown in at most five digits, special values by their names."""
    assert [number(value) for value in (None, 0.123456789, 1e-9, 3.0, math.nan, -math.inf)] == [
        "",
        "0.12346",
        "1e-09",
        "3",
        "nan",
        "-inf",
    ]


def test_tables_are_aligned():
    """Columns begin at the same place in every line, and no line ends in spaces."""
    lines = table(("a", "long head", "c"), [("1", "2", "3"), ("four", "", "")]).splitlines()
    assert lines == ["a     long head  c", "1     2          3", "four"]
