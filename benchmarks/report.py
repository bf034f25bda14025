"""Tables for the eye, JSON for the repository."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import machine
from benchmarks.options import Options

Row = dict[str, Any]
Rows = dict[str, Row]


@dataclass(frozen=True)
class Column:
    """One column: the key of the rows, the words above it, its unit's factor and digits.

    Attributes:
        key: in each row; a number, a summary, a text or None.
        title: the words above.
        digits: behind the point.
        factor: from what is stored to what is shown.
        quartiles: show them in brackets.

    """

    key: str
    title: str
    digits: int = 3
    factor: float = 1.0
    quartiles: bool = False

    def text(self, row: Row) -> str:
        """Return the cell."""
        value = row.get(self.key)
        if value is None:
            return "-"
        if isinstance(value, Mapping):
            shown = self._number(value["median"])
            return f"{shown} ({self._number(value['q1'])}..{self._number(value['q3'])})" if self.quartiles else shown
        return self._number(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)

    def _number(self, value: float) -> str:
        return f"{value * self.factor:.{self.digits}f}"


def show(title: str, rows: Rows, columns: Sequence[Column]) -> None:
    """Print one table."""
    cells = [["", *(column.title for column in columns)]]
    cells += [[name, *(column.text(row) for column in columns)] for name, row in rows.items()]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns) + 1)]
    print(f"\n{title}")
    for line in cells:
        first, *others = (
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip(), flush=True)


def write(options: Options, name: str, groups: Mapping[str, Any], **settings: Any) -> None:
    """Write a result as JSON, with the machine and the versions it holds for."""
    result = {
        "table": name,
        **machine.describe(options.folder),
        "settings": {"quick": options.quick, **settings},
        "groups": _rounded(groups),
    }
    path = options.results / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read(options: Options, name: str) -> dict[str, Any] | None:
    """Return a result that was written, if it was."""
    path = options.results / "results" / f"{name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _rounded(value: Any) -> Any:
    """Keep four digits of each float: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
