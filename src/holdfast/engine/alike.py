"""Whether checkpoints are of one model, so that there is a mean of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from holdfast.engine.averaging import Source, averages
from holdfast.engine.measuring import has_values
from holdfast.errors import ConfigurationError, printable


def check_alike(newest: Source, source: Source, targets: Mapping[str, torch.Tensor]) -> None:
    """See that a source has what is to be averaged, in the same shapes, and nothing tied otherwise.

    Raises:
        ConfigurationError: naming the first tensor of which that is not so.

    """
    pair = f"{newest.look.path} and {source.look.path}"
    for name in dict.fromkeys((*newest.tensors, *source.tensors)):
        one, other = newest.tensors.get(name), source.tensors.get(name)
        if one is None or other is None:
            has, lacks = (source, newest) if one is None else (newest, source)
            msg = f"{has.look.path} has a tensor {name!r} and {lacks.look.path} has not: they are not of one model"
            raise ConfigurationError(printable(msg))
        if name in targets and (
            one.shape != other.shape
            or not averages(other)
            or not has_values(other)
            or one.is_complex() != other.is_complex()
        ):
            shapes = f"{_kind(one)} and {_kind(other)}"
            msg = f"the tensor {name!r} is not alike in {pair}: {shapes}; there is no mean of the two"
            raise ConfigurationError(printable(msg))
    _check_ties(source, targets, pair)


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_ties(source: Source, targets: Mapping[str, torch.Tensor], pair: str) -> None:
    """See that tensors that share elements in the newest share the same ones in a source."""
    groups: dict[int, list[str]] = {}
    for name, tensor in targets.items():
        if tensor.numel():
            groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    for names in groups.values():
        names.sort(key=lambda name: _extent(targets[name])[0])
        last = names[0]
        for name in names[1:]:
            (begin, end), (_, reach) = _extent(targets[name]), _extent(targets[last])
            tied = _apart(targets[last], targets[name]) == _apart(source.tensors[last], source.tensors[name])
            if begin < reach and not tied:
                msg = f"{last!r} and {name!r} share their memory otherwise in {pair}: the mean of both has no one value"
                raise ConfigurationError(printable(msg))
            last = name if end >= reach else last


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Return where a tensor's elements begin and end in its storage, in elements."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    begin = int(tensor.storage_offset())
    return begin, begin + 1 + sum((size - 1) * step for size, step in steps)


def _apart(one: torch.Tensor, other: torch.Tensor) -> tuple[object, ...]:
    """Return how two tensors lie to each other; None in it if they lie in two storages."""
    together = one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
    distance = other.storage_offset() - one.storage_offset() if together else None
    return distance, one.stride(), other.stride(), one.is_conj(), other.is_conj()
