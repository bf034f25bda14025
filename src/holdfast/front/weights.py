"""The weights in a state: where they are, under which names, and which of them are one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from holdfast.engine import load
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, LoadError, printable
from holdfast.format import reading
from holdfast.front.catalogue import read_manifest_at
from holdfast.records import Manifest
from holdfast.source import BlobSource
from holdfast.storage import is_local, open_store, plain_path, split_path

_ENTRIES = ("state_dict", "model_state_dict", "model")  # where people keep them, the first that is there
OPTIMIZERS = ("optimizer_states", "optimizer_state_dict", "optimizer")


@dataclass(frozen=True)
class Weights:
    """The tensors that go on, in the order of the state.

    Attributes:
        tensors: by their new names; of several names of one tensor, only the first.
        tied: the other names, each with the one that stands for it.
        left_out: the names in the state of what does not begin with the prefix.
        extras: the values that are no tensors, by their new names.
        order: all new names, in the order of the state.

    """

    tensors: Mapping[str, torch.Tensor]
    tied: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()


def read_state(
    path: str | os.PathLike[str], *, allow: Sequence[Any] = (), allow_unsafe: bool = False
) -> tuple[Any, Manifest | None]:
    """Return the state of a file, whose every byte was checked, and its manifest if it has one.

    The tensors of a file of today's kind stay in the file until they are touched.

    Raises:
        LoadError: as ``holdfast.load``.

    """
    text = os.fspath(path)
    if is_local(text) and os.path.isdir(plain_path(text)):
        msg = f"{printable(text)} is a directory: name one checkpoint in it (`holdfast ls` lists them)"
        raise CheckpointNotFoundError(msg)
    manifest = read_manifest_at(text)
    root, name = split_path(text)
    store = open_store(root)
    mappable = reading.looks_like_zip(BlobSource(store, name, store.size(name)))
    return load(text, mmap=mappable, verify=True, allow=allow, allow_unsafe=allow_unsafe), manifest


def find_weights(state: Any, path: str, entry: str | None = None) -> tuple[str, Mapping[str, Any]]:
    """Return the entry of a state in which the weights are ("" where they are the state), and the weights.

    Raises:
        LoadError: if they are in none of the usual places.
        ConfigurationError: if they are not in the entry that was named.

    """
    if not isinstance(state, Mapping):
        msg = f"{printable(path)} holds no mapping of names but a {type(state).__name__}: there are no weights to find"
        raise LoadError(msg)
    known = printable(", ".join(map(str, list(state)[:20]))) or "nothing"
    if entry is not None:
        if not _are_weights(state.get(entry)):
            msg = f"`entry`={entry!r} is no mapping with tensors in {printable(path)}, which has: {known}"
            raise ConfigurationError(msg)
        return entry, state[entry]
    for place in _ENTRIES:
        if _are_weights(state.get(place)):
            return place, state[place]
    if _are_weights(state):
        return "", state
    msg = (
        f"no weights were found in {printable(path)}: none of {', '.join(_ENTRIES)} is there with tensors. It has: "
        f"{known}. Name the right one (entry=NAME, --entry NAME)"
    )
    raise LoadError(msg)


def _are_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, torch.Tensor) for item in value.values())


def pick(weights: Mapping[str, Any], strip_prefix: str = "") -> Weights:
    """Return what goes on of these weights.

    Args:
        weights: by name.
        strip_prefix: taken off the names; what does not begin with it is left out.

    Raises:
        ConfigurationError: if no name begins with the prefix, or one is nothing but the prefix.

    """
    tensors: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    extras: dict[str, Any] = {}
    left_out, order = [], []
    first: dict[tuple[Any, ...], str] = {}
    for old, value in weights.items():
        if not isinstance(old, str) or not old.startswith(strip_prefix):
            left_out.append(str(old))
            continue
        name = old[len(strip_prefix) :]
        if not name:
            msg = f"`strip_prefix`={strip_prefix!r} is the whole name of a tensor: it would have none"
            raise ConfigurationError(msg)
        order.append(name)
        if not isinstance(value, torch.Tensor):
            extras[name] = value
            continue
        same = _identity(value)
        if same is not None and first.setdefault(same, name) != name:
            tied[name] = first[same]
        else:
            tensors[name] = value.detach()
    if not tensors:
        beginnings = sorted({f"{name.partition('.')[0]}." for name in map(str, weights) if "." in name})
        instead = f"they begin with {', '.join(map(repr, beginnings[:20]))}" if beginnings else "none has a dot in it"
        msg = f"no tensor's name begins with `strip_prefix`={strip_prefix!r}: {instead}"
        raise ConfigurationError(printable(msg))
    return Weights(tensors, tied, tuple(left_out), extras, tuple(order))


def _identity(tensor: torch.Tensor) -> tuple[Any, ...] | None:
    """Return what only tensors that are the same bytes in the same way share; None where there are no bytes."""
    if not is_dense(tensor) or not tensor.numel() or tensor.device.type == "meta":
        return None
    view = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return (tensor.untyped_storage().data_ptr(), *view, tensor.is_conj(), tensor.is_neg())


def is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is nothing but its elements: neither sparse nor quantized nor nested."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_nested
