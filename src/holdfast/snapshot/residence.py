"""Tensors that live in the image itself, so that a save copies nothing of them.

A tensor keeps its identity, shape and values; only the memory behind it is another. Whatever else
refers to the old memory (a view that the user holds, a tied weight that is not among the tensors) would
go on with the old one: such a storage is found by its being alive after all known tensors have left,
and they move back.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef


class Home(NamedTuple):
    """Where a storage's bytes belong in the image."""

    offset: int
    size: int


class Moved(NamedTuple):
    """What became of it.

    Attributes:
        tenants: where in the memory some live now.
        outsiders: the addresses of storages that had to stay where they are.

    """

    tenants: set[int]
    outsiders: set[int]


def move_in(tensors: Iterable[torch.Tensor], memory: mmap.mmap, homes: Mapping[int, Home]) -> Moved:
    """Move those tensors whose storages, by address and size, have a home in the memory."""
    moved = Moved(set(), set())
    groups: dict[int, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.layout is torch.strided and tensor.is_cpu:
            groups.setdefault(tensor.untyped_storage().data_ptr(), []).append(tensor)
    for address, group in groups.items():
        home = homes.get(address)
        if home is None or home.size != group[0].untyped_storage().nbytes():
            continue  # or another has the address by now
        stays = _move(group, torch.frombuffer(memory, dtype=torch.uint8, count=home.size, offset=home.offset))
        if stays:
            moved.tenants.add(home.offset)
        else:
            moved.outsiders.add(address)
    return moved


def _move(tensors: list[torch.Tensor], home: torch.Tensor) -> bool:
    """Move the tensors of one storage to other memory; move them back if something else is left behind.

    Returns whether they stay there.
    """
    old = StorageWeakRef(tensors[0].untyped_storage())  # type: ignore[no-untyped-call]
    home.untyped_storage().copy_(tensors[0].untyped_storage())
    for tensor in tensors:
        _point(tensor, home.untyped_storage())
    if old.expired():  # type: ignore[no-untyped-call]
        return True
    storage = torch.UntypedStorage._new_with_weak_ptr(old.cdata)  # noqa: SLF001
    for tensor in tensors:
        _point(tensor, storage)
    return False


def _point(tensor: torch.Tensor, storage: torch.UntypedStorage) -> None:
    view = torch.empty(0, dtype=tensor.dtype)
    view.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    tensor.data = view
