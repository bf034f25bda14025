"""Loading over living tensors: the bytes go straight to the memory that training uses, and no second state is held.

What is damaged may show only when a part of it is there already. So a careful load checks all bytes first,
which is quick for a file that the page cache holds; one that it does not hold, and that would have to be read
twice, is then loaded into memory of its own. Who has an older checkpoint to fall back on need not be careful.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from holdfast.format.reading import Account
from holdfast.snapshot import named_tensors

_LARGE = 1 << 16  # bytes below which a copy more is not felt
_OWN = (torch.Tensor, torch.nn.Parameter)  # subclasses may keep their values elsewhere


@dataclass
class Into:
    """Living tensors that a load may write over.

    Attributes:
        tensors: by their names in the state.
        careful: write over them only what is known to be whole.
        touched: whether any may have been written over.

    """

    tensors: Mapping[str, torch.Tensor]
    careful: bool = True
    touched: bool = False


class _Stretch(NamedTuple):
    """The bytes of one record, in the file and in memory."""

    begin: int
    end: int
    address: int


@dataclass(frozen=True)
class Homes:
    """Which records of a file go to the memory of which living storages.

    Attributes:
        storages: the living storages, by the records' names.
        stretches: the same as places, in the order of the file.

    """

    storages: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    stretches: list[_Stretch] = field(default_factory=list)

    def among(self, begin: int, end: int) -> Iterator[tuple[int, int, int | None]]:
        """Divide a range of the file: yield begin, end and address of each part; None: none that lives."""
        first = max(0, bisect_right(self.stretches, begin, key=lambda item: item.begin) - 1)
        for stretch in self.stretches[first:]:
            if stretch.begin >= end:
                break
            if stretch.end <= begin:
                continue
            if begin < stretch.begin:
                yield begin, stretch.begin, None
                begin = stretch.begin
            stop = min(end, stretch.end)
            yield begin, stop, stretch.address + begin - stretch.begin
            begin = stop
        if begin < end:
            yield begin, end, None


def homes_of(account: Account, into: Into | None) -> Homes:
    """Find the records that hold just what a living tensor of the same name, shape and kind does."""
    homes = Homes()
    if into is None:
        return homes
    names: dict[str, str] = {}
    taken: set[int] = set()
    for info in account.manifest.tensors:
        tensor = into.tensors.get(info.name)
        if tensor is None or info.record in names or not _fits(tensor, info.dtype, info.shape):
            continue
        address = tensor.untyped_storage().data_ptr()
        if address not in taken:  # two records cannot go to one place, though it has two names
            taken.add(address)
            names[info.record] = info.name
    for item in account.placed:
        name = item.record.name
        if name not in names:
            continue
        storage = into.tensors[names[name]].untyped_storage()
        if storage.nbytes() == item.record.size:
            homes.storages[name] = storage
            begin = item.data_offset
            homes.stretches.append(_Stretch(begin, begin + item.record.size, storage.data_ptr()))
    return homes


def _fits(tensor: torch.Tensor, dtype: str, shape: tuple[int, ...]) -> bool:
    whole = tensor.layout is torch.strided and tensor.is_cpu and tensor.storage_offset() == 0
    size = tensor.numel() * tensor.element_size()
    same = tuple(tensor.shape) == tuple(shape) and str(tensor.dtype).removeprefix("torch.") == dtype
    return type(tensor) in _OWN and whole and same and size >= _LARGE and tensor.untyped_storage().nbytes() == size


def part_misfits(state: object, homes: Homes, into: Into) -> None:
    """Give memory of its own to each loaded tensor that looks at a living storage otherwise than its namesake does.

    Such as one that was saved in another memory format: who takes the state would copy it onto itself.
    """
    living = {storage.data_ptr() for storage in homes.storages.values()}
    for name, tensor in named_tensors(state) if living else ():
        if tensor.layout is torch.strided and tensor.untyped_storage().data_ptr() in living:
            own = into.tensors.get(name)
            if own is None or not _same_view(tensor, own):
                tensor.data = tensor.clone()


def _same_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    places = [(view.data_ptr(), view.dtype, view.shape, view.stride()) for view in (one, other)]
    return places[0] == places[1]


def scatter(parts: Iterable[tuple[int, int, int | None]], start: int, source: int, image: int) -> None:
    """Copy a piece of a file to where its parts belong.

    Args:
        parts: of the piece, as ``among`` has them.
        start: where in the file the piece begins.
        source: the address of the piece.
        image: the address of the memory for what has no other.

    """
    for begin, end, address in parts:
        ctypes.memmove(image + begin if address is None else address, source + begin - start, end - begin)
