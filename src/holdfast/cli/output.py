"""How the verbs speak: tables for people, JSON for programs, and how far something has come.

On a terminal tables are rich's, if the extra ``[cli]`` is installed; in pipes and without it they are plain
aligned columns. Colour is for terminals alone, and never with ``NO_COLOR``. What comes from a file is shown with
its control characters escaped, and is never read as markup.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

from holdfast.cli.text import table
from holdfast.errors import printable

STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}  # as terminals number them

_GAP = "  "  # between two columns
_LEAST = 20  # columns of the terminal that the last column of a table needs to fold in


def print_json(value: object) -> None:
    """Print a value as JSON; a number that JSON lacks stands as the string ``nan``, ``inf`` or ``-inf``."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print aligned columns; control characters in them stand escaped.

    Args:
        head: the titles.
        rows: a cell for each title.
        right: the titles of those columns that are flush right: numbers.

    """
    wide = on_terminal(sys.stdout) and _fits(head, rows)
    if wide and _print_rich(head, rows, right):
        return
    first, *rest = table(head, rows, right=right).split("\n")
    print("\n".join([styled(first, "bold"), *rest]))


def say(text: str, style: str = "") -> None:
    """Print a line with its control characters escaped; on a terminal in a style of ``STYLES``."""
    print(styled(printable(text), style))


def print_path(path: str, *, as_json: bool = False) -> None:
    """Print a path alone, for scripts: byte for byte in a pipe, with its control characters escaped on a terminal."""
    if as_json:
        print_json({"path": path})
    elif sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        print(printable(path))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def styled(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return a text as a terminal shows it in a style; as it is where nothing is to be coloured."""
    if not style or not has_colour(sys.stdout if stream is None else stream):
        return text
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m"


def on_terminal(stream: TextIO) -> bool:
    """Tell whether a person reads this stream on a terminal that can do more than print."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def has_colour(stream: TextIO) -> bool:
    """Tell whether a stream may be coloured: a terminal, and no ``NO_COLOR``."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show how far something has come, on a terminal; yields what to call with each amount of bytes done.

    What it yields may be called from any thread. Nothing is shown where stderr is no terminal.

    Args:
        total: bytes to do; 0 if that is not known.
        what: what is being done, in a word or two.

    """
    if not on_terminal(sys.stderr):
        yield _ignore
        return
    from holdfast.front.bars import bar  # noqa: PLC0415 - only for a terminal

    with bar(total, printable(what), sys.stderr) as advance:
        yield advance


def _ignore(done: int) -> None:
    del done


def _fits(head: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether all columns but the last fit beside each other on the terminal, with room for the last to fold."""
    cells = [head, *rows]
    taken = sum(max(len(printable(row[column])) for row in cells) + len(_GAP) for column in range(len(head) - 1))
    from shutil import get_terminal_size  # noqa: PLC0415 - only for a terminal

    return get_terminal_size().columns - taken >= _LEAST


def _print_rich(head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> bool:
    """Print with rich; False if it is not installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, title in enumerate(head):
        numeric = title in right
        whole = numeric or place < len(head) - 1
        made.add_column(title, justify="right" if numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))  # a Text is never read as markup
    Console(highlight=False, emoji=False).print(made)
    return True


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
