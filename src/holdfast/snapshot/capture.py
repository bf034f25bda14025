"""Pickle a state the way ``torch.save`` does, with the storages left out and handed over as memory."""

from __future__ import annotations

import ctypes
import io
import pickle
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.serialization import location_tag

from holdfast.format.writing import Part
from holdfast.records import TensorInfo

_PROTOCOL = 2  # torch's default: what every reader of its files understands


@dataclass(frozen=True)
class Snapshot:
    """A state as the records of a file.

    Attributes:
        parts: the records in torch's order; the data of CPU tensors are views, not copies.
        tensors: the tensors that can be reached by names.

    """

    parts: tuple[Part, ...]
    tensors: tuple[TensorInfo, ...]


def capture(state: object) -> Snapshot:
    """Return the state as records. Tensors on the CPU are not copied: write before they change.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: as ``torch.save`` does for what cannot be pickled.
        RuntimeError: if two storages share memory under different dtypes, as ``torch.save`` does.

    """
    skeleton = io.BytesIO()
    pickler = _Pickler(skeleton)
    pickler.dump(state)
    parts = [
        Part("data.pkl", skeleton.getvalue()),
        Part(".format_version", b"1"),
        Part(".storage_alignment", b"64"),
        Part("byteorder", sys.byteorder.encode()),
    ]
    keys: dict[int, str] = {}
    for key, storage in pickler.storages.items():
        keys[_identity(storage)] = f"data/{key}"
        parts.append(Part(f"data/{key}", _memory(storage)))
    parts.append(Part("version", b"3\n"))
    return Snapshot(tuple(parts), tuple(_tensor_infos(state, keys)))


class _Pickler(pickle.Pickler):
    """Replaces each storage by torch's persistent id and remembers it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.storages: dict[str, torch.UntypedStorage] = {}
        self._keys: dict[int, str] = {}
        self._dtypes: dict[int, torch.dtype] = {}

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        if isinstance(obj, torch.storage.TypedStorage):
            storage: torch.UntypedStorage = obj._untyped_storage  # noqa: SLF001 - no public way
            dtype, count = obj.dtype, obj._size()  # type: ignore[no-untyped-call]  # noqa: SLF001 - the public size() warns
            kind = getattr(torch, obj._pickle_storage_type())  # type: ignore[no-untyped-call]  # noqa: SLF001 - no public way
        elif isinstance(obj, torch.UntypedStorage):
            storage, dtype, count, kind = obj, torch.uint8, obj.nbytes(), getattr(torch, type(obj).__name__)
        else:
            return None
        self._check_dtype(storage, dtype)
        key = self._keys.setdefault(_identity(storage), str(len(self._keys)))
        location = getattr(obj, "_fake_device", None) or location_tag(storage)
        self.storages[key] = storage
        return ("storage", kind, key, str(location), count)

    def _check_dtype(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> None:
        if storage.device.type == "meta" or storage.data_ptr() == 0:
            return
        if self._dtypes.setdefault(storage.data_ptr(), dtype) != dtype:
            msg = "Cannot save multiple tensors or storages that view the same data as different types"
            raise RuntimeError(msg)


def _identity(storage: torch.UntypedStorage) -> int:
    """Return a number that no other living storage has; tensors that share memory share it."""
    return int(storage._cdata)  # noqa: SLF001 - what torch.save itself goes by


def _memory(storage: torch.UntypedStorage) -> memoryview | bytes:
    """Return the storage's bytes; the view keeps the storage alive."""
    size = storage.nbytes()
    if size == 0 or storage.device.type == "meta":
        return b"\0" * size
    host = storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
    array = (ctypes.c_char * size).from_address(host.data_ptr())
    array._storage = host  # type: ignore[attr-defined]  # noqa: SLF001 - ties the lifetimes
    return memoryview(array).cast("B")


def _tensor_infos(state: object, keys: Mapping[int, str]) -> Iterator[TensorInfo]:
    for name, tensor in _named_tensors(state, "", set()):
        dense = tensor.layout is torch.strided and not tensor.is_nested
        record = keys.get(_identity(tensor.untyped_storage()), "") if dense else ""
        dtype = str(tensor.dtype).removeprefix("torch.")
        yield TensorInfo(name, dtype, _shape(tensor), record)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the sizes; a nested tensor has no single one in the dimensions along which its parts differ."""
    if not tensor.is_nested:
        return tuple(tensor.shape)
    return (tensor.size(0),)


def _named_tensors(value: object, path: str, above: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Walk mappings and sequences; ``above`` holds the containers on the way down, against cycles."""
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    if isinstance(value, Mapping):
        items: Iterator[tuple[object, object]] = iter(value.items())
    elif isinstance(value, (list, tuple)):
        items = iter(enumerate(value))
    else:
        return
    if id(value) in above:
        return
    for key, item in items:
        yield from _named_tensors(item, f"{path}.{key}" if path else str(key), above | {id(value)})
