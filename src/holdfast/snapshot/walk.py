"""A look at everything in a state that decides about its pickle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

from holdfast.snapshot.plain import is_plain

_CONSTANT = frozenset({str, bool, type(None)})
_NUMBERS = frozenset({int, float})
_KEYS = _NUMBERS | {str}


class UnknownStateError(Exception):
    """There is something in the state of which the look cannot tell all."""


class Walk:
    """A look at a state, in the order in which it is pickled.

    Attributes:
        trace: everything that decides about the pickle, but for the numbers.
        numbers: the numbers that the state itself holds.
        tensors: its tensors, each once.
        places: of each tensor, the place of its storage.
        storages: the storages.

    """

    def __init__(self, state: object) -> None:
        """Look.

        Raises:
            UnknownStateError: at the first thing that is none of the common ones.

        """
        self.trace: list[Any] = []
        self.numbers: list[int | float] = []
        self.tensors: list[torch.Tensor] = []
        self.places: list[int] = []
        self.storages: list[torch.UntypedStorage] = []
        self._seen: dict[int, int] = {}
        self._known: dict[int, int] = {}
        self._look(state)

    def _look(self, value: Any) -> None:
        kind = type(value)
        if kind is torch.Tensor:
            self._look_at_tensor(value)
        elif kind is int or kind is float:
            self.trace.append(kind)
            self.numbers.append(value)
        elif kind in _CONSTANT:
            self.trace.append(value)
        else:
            self._look_into(value, kind)

    def _look_into(self, value: Any, kind: type) -> None:
        if self._again(value):
            return
        if kind is dict or kind is OrderedDict:
            if not _KEYS.issuperset(map(type, value)):  # a bool is a number to Python, and none to a pickle
                raise UnknownStateError
            self.trace.append((kind, *value, *map(type, value)))
            for item in value.values():
                self._look(item)
            attributes = value.__dict__ if kind is OrderedDict else None
            if attributes:
                self._look(attributes)
        elif kind is list or kind is tuple:
            self.trace.append((kind, len(value)))
            for item in value:
                self._look(item)
        else:
            raise UnknownStateError

    def _again(self, value: object) -> bool:
        """Tell whether this very object was met before, which a pickle only refers to."""
        before = self._seen.get(id(value))
        if before is None:
            self._seen[id(value)] = len(self._seen)
            return False
        self.trace.append(("again", before))
        return True

    def _look_at_tensor(self, tensor: torch.Tensor) -> None:
        if self._again(tensor):
            return
        if not is_plain(tensor):
            raise UnknownStateError
        storage = tensor.untyped_storage()
        place = self._known.setdefault(storage._cdata, len(self.storages))  # noqa: SLF001 - what torch.save goes by
        if place == len(self.storages):
            self.storages.append(storage)
        self.tensors.append(tensor)
        self.places.append(place)
        view = (tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.requires_grad)
        self.trace.append((place, storage.nbytes(), storage.device, *view))


def numbers_in_order(value: Any, seen: set[int]) -> Iterator[bool]:
    """Yield, for each number of a state's pickle, whether it is the state's own, or part of a key or a tensor."""
    kind = type(value)
    if kind is int or kind is float:
        yield True
    elif kind is torch.Tensor:
        if id(value) not in seen:
            seen.add(id(value))
            yield from [False] * (2 + 2 * value.dim())  # the storage's length, the offset, sizes and strides
    elif kind not in _CONSTANT and id(value) not in seen:
        seen.add(id(value))
        if kind is list or kind is tuple:
            for item in value:
                yield from numbers_in_order(item, seen)
        else:
            for key, item in value.items():
                yield from [False] * (type(key) in _NUMBERS)
                yield from numbers_in_order(item, seen)
            if getattr(value, "__dict__", None):
                yield from numbers_in_order(value.__dict__, seen)
