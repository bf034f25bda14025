"""From the regions of a checkpoint's files to tensors: what a DCP load plan asks for, each region read once."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlanner, ReadItem

from holdfast.engine.globals import needed_globals, permitting
from holdfast.engine.sharded.regions import Wanted, read_regions
from holdfast.engine.sharded.resting import Resting
from holdfast.errors import DamagedCheckpointError, LoadError, UnsafeCheckpointError, printable
from holdfast.folders import FolderSource
from holdfast.format.shards import Region

_BATCH = 1 << 28  # bytes of regions that pass through memory of their own at a time
_OWN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True)
class _Delivery:
    """One region on its way: what is to be read, and what is done once it is known to be whole."""

    wanted: Wanted
    deliver: Callable[[], None]
    memory: int


class Reading:
    """Carries out load plans on one checkpoint.

    Args:
        resting: the checkpoint.
        allow: further classes that values may need.
        allow_unsafe: whether a value may name any code at all.

    """

    def __init__(self, resting: Resting, allow: Sequence[Any] = (), *, allow_unsafe: bool = False) -> None:
        """Read nothing yet."""
        self._resting = resting
        self._allow = allow
        self._unsafe = allow_unsafe

    def read(self, items: Sequence[ReadItem], planner: LoadPlanner) -> None:
        """Read the items, each region once, and hand them to the planner.

        Raises:
            DamagedCheckpointError: naming the file and the tensor.
            UnsafeCheckpointError: if a value needs classes that are not allowed.
            LoadError: if the checkpoint does not fit what it is loaded into.

        """
        stored = self._resting.metadata.storage_data
        files: dict[str, dict[MetadataIndex, list[ReadItem]]] = {}
        for item in items:
            place = stored.get(item.storage_index)
            if place is None:
                name = item.storage_index.fqn
                raise DamagedCheckpointError(self._resting.path, name, "the metadata do not say where it lies")
            files.setdefault(place.relative_path, {}).setdefault(item.storage_index, []).append(item)
        for name in sorted(files):
            with self._resting.opened(name) as source:
                known = self._resting.regions(name, source)
                order = sorted(files[name], key=lambda index: stored[index].offset)
                found = (self._delivery(source, known, index, files[name][index], planner) for index in order)
                for batch in _batches(found):
                    verify = self._resting.verify and bool(known)
                    read_regions(source, [delivery.wanted for delivery in batch], verify=verify)
                    for delivery in batch:
                        delivery.deliver()

    def _delivery(
        self,
        source: FolderSource,
        known: dict[int, Region],
        index: MetadataIndex,
        items: list[ReadItem],
        planner: LoadPlanner,
    ) -> _Delivery:
        place = self._resting.metadata.storage_data[index]
        region = known.get(place.offset) or Region(index.fqn, None, place.offset, place.length, 0)
        at = None if index.offset is None else tuple(index.offset)
        if known and (region.length != place.length or (region.name, region.at) != (index.fqn, at)):
            raise DamagedCheckpointError(
                source.path, index.fqn, "its table and the metadata tell different things of it"
            )
        if getattr(place, "transform_descriptors", None):
            msg = f"{source.path}: {index.fqn} was packed by an extension of DCP: load it with DCP itself"
            raise LoadError(msg)
        if region.end > source.size:
            raise DamagedCheckpointError(source.path, region.label, f"the file ended after {source.size} bytes")
        if region.data < 0 or items[0].type is LoadItemType.BYTE_IO:
            return self._opaque(region, items, planner)
        return self._dense(source, region, items, planner)

    def _opaque(self, region: Region, items: list[ReadItem], planner: LoadPlanner) -> _Delivery:
        """Read a region as the archive that it is."""
        data = bytearray(region.length or 1)
        memory = (ctypes.c_char * len(data)).from_buffer(data)

        def deliver() -> None:
            nonlocal memory
            del memory
            value = io.BytesIO(data)
            for item in items:
                value.seek(0)
                if item.type is LoadItemType.BYTE_IO:
                    self._check_value(region.name, value)
                    planner.load_bytes(item, value)
                else:
                    self._hand_over(item, self._load(region.name, value, weights_only=True), planner)

        return _Delivery(Wanted(region, 0, region.length, ctypes.addressof(memory)), deliver, len(data))

    def _dense(self, source: FolderSource, region: Region, items: list[ReadItem], planner: LoadPlanner) -> _Delivery:
        """Read a tensor's own bytes, straight to where they belong if they can go there as they are."""
        whole = self._resting.metadata.state_dict_metadata.get(region.name)
        chunks = whole.chunks if isinstance(whole, TensorStorageMetadata) else []
        sizes = next((chunk.sizes for chunk in chunks if tuple(chunk.offsets) == region.at), None)
        if sizes is None or not isinstance(whole, TensorStorageMetadata):
            raise DamagedCheckpointError(source.path, region.label, "the metadata do not know it")
        dtype = whole.properties.dtype
        if region.size != math.prod(sizes) * dtype.itemsize:
            problem = f"it has {region.size} bytes, and the metadata say {dtype} {list(sizes)}"
            raise DamagedCheckpointError(source.path, region.label, problem)
        home = _home(items, sizes, dtype, planner)
        if home is not None:
            wanted = Wanted(region, region.data, region.size, home.data_ptr())
            return _Delivery(wanted, lambda: planner.commit_tensor(items[0], home), 0)
        own = torch.empty(sizes, dtype=dtype, device="cpu")

        def deliver() -> None:
            for item in items:
                self._hand_over(item, own, planner)

        return _Delivery(Wanted(region, region.data, region.size, own.data_ptr()), deliver, region.size)

    def _hand_over(self, item: ReadItem, tensor: Any, planner: LoadPlanner) -> None:
        """Copy the part of a saved tensor that an item asks for to where the planner wants it."""
        name = item.storage_index.fqn
        if not isinstance(tensor, torch.Tensor):
            raise DamagedCheckpointError(self._resting.path, name, "the metadata say it is a tensor, and it is none")
        for dimension, (begin, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            if begin + length > tensor.size(dimension):
                raise DamagedCheckpointError(self._resting.path, name, f"it is of {list(tensor.shape)} only")
            tensor = tensor.narrow(dimension, begin, length)
        target = planner.resolve_tensor(item).detach()
        if target.shape != tensor.shape:
            msg = f"{self._resting.path}: {name} is of {list(tensor.shape)}, where {list(target.shape)} is wanted"
            raise LoadError(msg)
        target.copy_(tensor)
        planner.commit_tensor(item, target)

    def _check_value(self, name: str, value: io.BytesIO) -> None:
        """See that a value can be built without code of the file's own: the planner's loader may not ask."""
        if not self._unsafe:
            self._load(name, value, weights_only=True)
            value.seek(0)

    def load_value(self, name: str, value: io.BytesIO) -> Any:
        """Build a value, by torch's safe loader unless all was allowed."""
        return self._load(name, value, weights_only=not self._unsafe)

    def _load(self, name: str, value: io.BytesIO, *, weights_only: bool) -> Any:
        safe = permitting(self._allow) if weights_only else contextlib.nullcontext()
        path = self._resting.path
        try:
            with safe:
                return torch.load(value, map_location="cpu", weights_only=weights_only)
        except pickle.UnpicklingError as error:
            needs = tuple(needed_globals(value))
            if not weights_only or not needs:
                problem = f"it cannot be unpickled: {str(error).partition(chr(10))[0]}"
                raise DamagedCheckpointError(path, name, problem) from error
            msg = printable(
                f"{path}: {name} needs {', '.join(needs)}, which is not allowed. If you trust these, import them and "
                "pass them as `allow`"
            )
            raise UnsafeCheckpointError(msg, needs) from error
        except Exception as error:  # what a pickle can make of the bytes of a stranger knows no bounds
            raise DamagedCheckpointError(path, name, f"{type(error).__name__}: {error}"[:300]) from error


class _Unmoved(DefaultLoadPlanner):
    """Takes values, and does nothing with them."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Leave it."""


def check_values(path: str | os.PathLike[str], allow: Sequence[Any] = ()) -> None:
    """Before plain DCP, which unpickles whatever is there, loads a directory: see that nothing in it is code.

    Raises:
        CheckpointNotFoundError: if there is no sharded checkpoint.
        DamagedCheckpointError: if its metadata or a value are not as they were written.
        UnsafeCheckpointError: if they need classes that are not allowed.

    """
    resting = Resting(path)
    known = resting.metadata.state_dict_metadata.items()
    values = [MetadataIndex(name) for name, kind in known if isinstance(kind, BytesStorageMetadata)]
    none = torch.Size([0])
    items = [ReadItem(LoadItemType.BYTE_IO, index, none, index, none, none) for index in values]
    Reading(resting, allow).read(items, _Unmoved())


def _home(items: list[ReadItem], sizes: torch.Size, dtype: torch.dtype, planner: LoadPlanner) -> torch.Tensor | None:
    """Return the one tensor whose memory can take the bytes of a region as they are; None if there is no such."""
    if len(items) != 1 or items[0].lengths != sizes or any(items[0].storage_offsets):
        return None
    target = planner.resolve_tensor(items[0]).detach()
    dense = type(target) in _OWN and target.layout is torch.strided and target.is_cpu and target.is_contiguous()
    fits = dense and target.dtype == dtype and target.shape == sizes and not target.is_conj() and not target.is_neg()
    return target if fits else None


def _batches(found: Iterator[_Delivery]) -> Iterator[list[_Delivery]]:
    batch: list[_Delivery] = []
    memory = 0
    for item in found:
        batch.append(item)
        memory += item.memory
        if memory >= _BATCH:
            yield batch
            batch, memory = [], 0
    if batch:
        yield batch
