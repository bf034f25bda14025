"""A nested state as flat names and values, the way ``torch.distributed.checkpoint`` flattens it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Leaf:
    """A value of a nested state, and where it is kept.

    Attributes:
        name: its keys and places, joined by dots.
        path: the same one by one, as DCP notes them: keys as text, places in lists as numbers.
        value: the value.
        holder: the container that it is in.
        key: its own key there, of whatever type.

    """

    name: str
    path: Path
    value: Any
    holder: Any
    key: Any


def leaves(state: Mapping[Any, Any]) -> Iterator[Leaf]:
    """Yield the values of a state: into mappings, and into lists that hold mappings or tensors.

    An empty mapping is a value too: DCP itself would lose it.
    """
    for key, value in state.items():
        yield from _below((str(key),), value, state, key)


def _below(path: Path, value: Any, holder: Any, key: Any) -> Iterator[Leaf]:
    if isinstance(value, Mapping) and value:
        for inner, item in value.items():
            yield from _below((*path, str(inner)), item, value, inner)
    elif isinstance(value, list) and _is_nested(value):
        for place, item in enumerate(value):
            yield from _below((*path, place), item, value, place)
    else:
        yield Leaf(".".join(map(str, path)), path, value, holder, key)


def _is_nested(values: list[Any]) -> bool:
    return any(
        isinstance(item, (Mapping, torch.Tensor)) or (isinstance(item, list) and _is_nested(item)) for item in values
    )


def is_sharded(state: object) -> bool:
    """Tell whether a state has any tensor of which this rank holds a part: a DTensor or a ShardedTensor."""
    kinds = _sharded_kinds()
    return bool(kinds) and _any(state, kinds, set())


def _sharded_kinds() -> tuple[type, ...]:
    """Return the classes of such tensors, as far as their modules are imported: without them there are none."""
    where = (
        ("torch.distributed.tensor", "DTensor"),
        ("torch.distributed._shard.sharded_tensor", "ShardedTensor"),
    )
    return tuple(getattr(sys.modules[module], name) for module, name in where if hasattr(sys.modules.get(module), name))


def _any(value: object, kinds: tuple[type, ...], above: set[int]) -> bool:
    if isinstance(value, kinds):
        return True
    if not isinstance(value, (Mapping, list, tuple)) or id(value) in above:
        return False
    above.add(id(value))
    items = value.values() if isinstance(value, Mapping) else value
    return any(_any(item, kinds, above) for item in items)
