"""Which memory of a state only an optimizer's step changes, and how large the state is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

_OWN = (torch.Tensor, torch.nn.Parameter)  # subclasses may have no storage, or several
_SMALL = 1 << 16  # bytes below which a copy is over before it is worth watching


def stepped(model: object, optimizers: Iterable[object]) -> dict[int, list[torch.Tensor]]:
    """Return a model's parameters and the tensors of optimizers' states, by the addresses of their large storages."""
    found: dict[int, list[torch.Tensor]] = {}
    uncounted = set()
    for tensor in map(_local, _all(model, optimizers)):
        if type(tensor) not in _OWN:
            continue
        if tensor.layout is torch.strided and tensor.numel() * tensor.element_size() >= _SMALL:
            address = tensor.untyped_storage().data_ptr()
            found.setdefault(address, []).append(tensor)
            if tensor.is_inference():
                uncounted.add(address)
    return {address: tensors for address, tensors in found.items() if address not in uncounted}


def stepped_tensors(model: object, optimizers: Iterable[object]) -> list[torch.Tensor]:
    """Return those of a model's parameters and of the tensors in optimizers' states that are of torch's own classes."""
    return [tensor for tensor in _all(model, optimizers) if type(tensor) in _OWN]


def _all(model: object, optimizers: Iterable[object]) -> list[torch.Tensor]:
    return [*_parameters(model), *(item for optimizer in optimizers for item in _moments(optimizer))]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a DTensor; any other tensor as it is."""
    part = getattr(tensor, "_local_tensor", None) if type(tensor) not in _OWN else None
    return part if isinstance(part, torch.Tensor) else tensor


def weigh(model: object, optimizers: Iterable[object]) -> int:
    """Return about how many bytes the state of a model and its optimizers has: of sharded tensors all parts."""
    tensors = _all(model, optimizers)
    buffers = getattr(model, "buffers", None)
    tensors += list(buffers()) if callable(buffers) else []
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _parameters(model: object) -> Iterator[torch.Tensor]:
    parameters = getattr(model, "parameters", None)
    for item in parameters() if callable(parameters) else ():
        if isinstance(item, torch.Tensor):
            yield item


def _moments(optimizer: object) -> Iterator[torch.Tensor]:
    state: Any = getattr(optimizer, "state", None)
    for values in list(state.values()) if isinstance(state, dict) else ():
        for value in values.values() if isinstance(values, dict) else ():
            if isinstance(value, torch.Tensor):
                yield value
