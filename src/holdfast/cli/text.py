"""Numbers and tables for people. What comes from a file is shown with its control characters escaped."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime, timezone

from holdfast.errors import printable

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def age(time: str, now: datetime | None = None) -> str:
    """Return how long ago an ISO 8601 time was: ``3 h ago``; "" for what is no time."""
    try:
        seconds = ((now or datetime.now(timezone.utc)) - datetime.fromisoformat(time)).total_seconds()
    except (TypeError, ValueError):
        return ""
    for limit, unit, name in ((_MINUTE, 1, "s"), (_HOUR, _MINUTE, "min"), (2 * _DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / unit:.0f} {name} ago"
    return f"{seconds / _DAY:.0f} days ago"


def number(value: float | None) -> str:
    """Return a metric in at most five digits."""
    if value is None:
        return ""
    return f"{value:.5g}" if math.isfinite(value) else repr(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> str:
    """Return aligned columns; those whose titles are in ``right`` are flush right."""
    lines = [tuple(head), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    flush = [title in right for title in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, flush, strict=True)
        ).rstrip()
        for line in lines
    )
