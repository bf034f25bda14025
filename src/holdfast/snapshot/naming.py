"""The names of the tensors in a state: the keys and places on the way to each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

_LEAVES = frozenset({int, float, str, bool, bytes, complex, type(None)})


def named_tensors(state: object) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors in mappings, lists and tuples, with their names, such as ``state_dict.head.weight``."""
    return _walk(state, "", set())


def _walk(value: object, path: str, above: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Go down; ``above`` holds the containers that were met, against cycles and what is shared many times over."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    items = _items(value)
    if items is None or id(value) in above:
        return
    above.add(id(value))  # and it stays: of what is reached in several ways, only the first has names
    prefix = f"{path}." if path else ""
    for key, item in items:
        if type(item) is torch.Tensor:
            yield f"{prefix}{key}", item
        elif type(item) not in _LEAVES:
            yield from _walk(item, f"{prefix}{key}", above)


def _items(value: object) -> Iterator[tuple[object, object]] | None:
    if isinstance(value, Mapping):
        return iter(value.items())
    if isinstance(value, (list, tuple)):
        return iter(enumerate(value))
    return None
