"""The values in a state that are no tensors, by name: learning rates, counters, hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from holdfast.errors import printable

_PLAIN = (int, float, str, bool, bytes, complex, type(None))
_MANY = 16  # items of a list of plain values that are still told one by one
_LONG = 80  # characters of a value that are shown


class Folded(tuple[Any, ...]):
    """A long list of plain values, which is one value."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Show the first ones and how many there are."""
        return f"[{', '.join(map(repr, self[:3]))}, ... {len(self)} items]"


def named_values(state: object) -> Iterator[tuple[str, Any]]:
    """Yield the values in mappings, lists, tuples and objects that are no tensors, with their names."""
    return _walk(state, "", set())


def _walk(value: object, path: str, above: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, torch.Tensor):
        return
    items = _items(value)
    if items is None:
        yield path, Folded(value) if isinstance(value, (list, tuple)) else value  # of these, only long ones come here
        return
    if id(value) in above:
        return
    above.add(id(value))  # and it stays, as in the names of tensors
    prefix = f"{path}." if path else ""
    for key, item in items:
        yield from _walk(item, f"{prefix}{key}", above)


def _items(value: object) -> Iterator[tuple[object, object]] | None:
    if isinstance(value, Mapping):
        return iter(value.items())
    if isinstance(value, (list, tuple)) and not _is_long(value):
        return iter(enumerate(value))
    if isinstance(value, (list, tuple, *_PLAIN)) or not hasattr(value, "__dict__"):
        return None
    return iter(vars(value).items())


def _is_long(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) <= _MANY:
        return False
    return all(isinstance(item, _PLAIN) for item in value)


def same_value(one: Any, other: Any) -> bool:
    """Tell whether two values are of one type and equal; NaN equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, Sequence) and not isinstance(one, (str, bytes)):
        return len(one) == len(other) and all(map(same_value, one, other))
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - what a class makes of == knows no bounds; an array has no one answer
        return repr(one) == repr(other)


def plain_value(value: Any) -> Any:
    """Return a value for JSON and for people: a plain one as it is, another by what it calls itself, shortened."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else repr(value)
    text = printable(text)
    return text if len(text) <= _LONG else text[: _LONG - 3] + "..."
