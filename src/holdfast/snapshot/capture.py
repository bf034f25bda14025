"""Pickle a state the way ``torch.save`` does, with the storages left out and listed beside it.

Plain tensors, nearly all of a state, are reduced here, to the same bytes in a third of the time that
``torch.Tensor.__reduce_ex__`` takes; all others by torch itself.
"""

from __future__ import annotations

import copyreg
import ctypes
import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.serialization import location_tag

from holdfast.format.writing import Part, slack
from holdfast.records import TensorInfo
from holdfast.snapshot.naming import named_tensors
from holdfast.snapshot.plain import KINDS, is_plain
from holdfast.snapshot.template import Templates
from holdfast.snapshot.walk import UnknownStateError, Walk

_PROTOCOL = 2  # torch's default: what every reader of its files understands
_NO_STORAGE = frozenset({int, float, str, bool, bytes, type(None), tuple, list, dict, OrderedDict, type, torch.Tensor})
_TRAILER = Part("version", b"3\n")
_rebuild = torch._utils._rebuild_tensor_v2  # noqa: SLF001 - the name that stands in torch's files


@dataclass(frozen=True)
class Snapshot:
    """A state as the records of a file.

    Attributes:
        leaders: the records before the storages, in torch's order.
        storages: the storages; that of place ``n`` is the record ``data/n``.
        tensors: the plain tensors that view each storage, by its place; a storage that is reached in
            another way as well is not among them.
        named: the tensors that can be reached by names.
        trailer: the record after the storages.
        known: where ``infos`` is kept for all states of this shape.

    """

    leaders: tuple[Part, ...]
    storages: tuple[torch.UntypedStorage, ...]
    tensors: Mapping[int, list[torch.Tensor]]
    named: list[tuple[str, torch.Tensor]]
    trailer: Part
    known: list[tuple[TensorInfo, ...]] = field(default_factory=list)

    def parts(self) -> Iterator[Part]:
        """Yield the records; the data of CPU tensors are views, not copies."""
        yield from self.leaders
        for place, storage in enumerate(self.storages):
            yield Part(f"data/{place}", memory_of(storage))
        yield self.trailer

    @cached_property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """The records' names and bytes."""
        leaders = [(part.name, len(part.data)) for part in self.leaders]
        storages = [(f"data/{place}", storage.nbytes()) for place, storage in enumerate(self.storages)]
        return (*leaders, *storages, (self.trailer.name, len(self.trailer.data)))

    @property
    def shape(self) -> tuple[tuple[str, int], ...]:
        """The names and bytes of the storages alone."""
        return self.sizes[len(self.leaders) : -1]

    def infos(self) -> tuple[TensorInfo, ...]:
        """Return what the manifest says of the tensors: the same object for all states of one template."""
        if not self.known:
            records = {_identity(storage): f"data/{place}" for place, storage in enumerate(self.storages)}
            self.known.append(tuple(_info(name, tensor, records) for name, tensor in self.named))
        return self.known[0]


def capture(state: object, *, templates: Templates | None = None, front: int | None = None) -> Snapshot:
    """Return the state as records. No tensor is copied: write, or copy, before they change.

    Args:
        state: what ``torch.save`` would take.
        templates: what is known of earlier states, so that one of the same shape need not be pickled.
        front: where the first storage's record is to begin if it can, so that it stays there though the
            skeleton's length changes; 0 leaves open where; None leaves no room.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: as ``torch.save`` does for what cannot be pickled.
        RuntimeError: if two storages share memory under different dtypes, as ``torch.save`` does.

    """
    walk = _look(state) if templates is not None else None
    found = templates.find(walk) if templates is not None and walk is not None else None
    if found is not None and walk is not None:
        template, skeleton = found
        tensors: dict[int, list[torch.Tensor]] = {}
        for place, tensor in zip(walk.places, walk.tensors, strict=True):
            tensors.setdefault(place, []).append(tensor)
        named = [(name, walk.tensors[number]) for name, number in template.names]
        return Snapshot(_leaders(skeleton, front), tuple(walk.storages), tensors, named, _TRAILER, template.infos)
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(state)
    del pickler.dispatch_table  # it holds the pickler, which holds all storages, until the garbage is collected
    skeleton, named = file.getvalue(), list(named_tensors(state))
    if templates is not None and walk is not None:
        templates.learn(state, walk, skeleton, named)
    return Snapshot(_leaders(skeleton, front), tuple(pickler.storages), pickler.plain(), named, _TRAILER)


def _look(state: object) -> Walk | None:
    try:
        return Walk(state)
    except (UnknownStateError, RecursionError):
        return None


def _leaders(skeleton: bytes, front: int | None) -> tuple[Part, ...]:
    """Return the records before the storages."""
    leaders = (
        Part("data.pkl", skeleton),
        Part(".format_version", b"1"),
        Part(".storage_alignment", b"64"),
        Part("byteorder", sys.byteorder.encode()),
    )
    return leaders if front is None else (*leaders, slack(leaders, front))


class _Ref:
    """Stands for a storage in a pickle."""

    __slots__ = ("persistent",)

    def __init__(self, persistent: tuple[Any, ...]) -> None:
        self.persistent = persistent


class _NoHooks:
    """Stands for an empty ``OrderedDict``, whose own way of being pickled is slow."""

    __slots__ = ()


def _no_hooks(_: _NoHooks) -> Any:
    return OrderedDict, ()


class _Pickler(pickle.Pickler):
    """Replaces each storage by torch's persistent id and remembers it."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self.dispatch_table = {**copyreg.dispatch_table, torch.Tensor: self._reduce, _NoHooks: _no_hooks}
        self.storages: list[torch.UntypedStorage] = []
        self._places: dict[int, int] = {}
        self._keys: list[str] = []  # one object for each, which a pickle refers to when it comes again
        self._dtypes: dict[int, torch.dtype] = {}
        self._tensors: dict[int, list[torch.Tensor]] = {}
        self._others: set[int] = set()

    def plain(self) -> dict[int, list[torch.Tensor]]:
        """Return the plain tensors by the place of their storage, where no other object holds it."""
        return {place: tensors for place, tensors in self._tensors.items() if place not in self._others}

    def persistent_id(self, obj: Any) -> tuple[Any, ...] | None:
        # Called for each object of the state, several thousand times: the common classes come first.
        if type(obj) in _NO_STORAGE:
            return None
        if type(obj) is _Ref:
            return obj.persistent
        if isinstance(obj, torch.storage.TypedStorage):
            storage: torch.UntypedStorage = obj._untyped_storage  # noqa: SLF001 - no public way
            dtype, count = obj.dtype, obj._size()  # type: ignore[no-untyped-call]  # noqa: SLF001 - the public size() warns
            kind = getattr(torch, obj._pickle_storage_type())  # type: ignore[no-untyped-call]  # noqa: SLF001 - no public way
        elif isinstance(obj, torch.UntypedStorage):
            storage, dtype, count, kind = obj, torch.uint8, obj.nbytes(), getattr(torch, type(obj).__name__)
        else:
            return None
        place = self._place(storage, dtype)
        self._others.add(place)
        location = getattr(obj, "_fake_device", None) or location_tag(storage)
        return ("storage", kind, self._keys[place], str(location), count)

    def _reduce(self, tensor: torch.Tensor) -> Any:
        """Reduce a tensor of the exact class ``torch.Tensor``."""
        if not is_plain(tensor):
            return tensor.__reduce_ex__(_PROTOCOL)  # type: ignore[no-untyped-call]
        kind, width = KINDS[tensor.dtype]
        storage = tensor.untyped_storage()
        place = self._place(storage, tensor.dtype)
        self._tensors.setdefault(place, []).append(tensor)
        location = "cpu" if tensor.is_cpu else location_tag(storage)
        ref = _Ref(("storage", kind, self._keys[place], location, storage.nbytes() // width))
        view = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.requires_grad)
        return _rebuild, (ref, *view, _NoHooks())

    def _place(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> int:
        identity = _identity(storage)
        place = self._places.get(identity)
        if place is None:
            place = self._places[identity] = len(self.storages)
            self.storages.append(storage)
            self._keys.append(str(place))
        address = 0 if storage.device.type == "meta" else storage.data_ptr()
        if address and self._dtypes.setdefault(address, dtype) != dtype:
            msg = "Cannot save multiple tensors or storages that view the same data as different types"
            raise RuntimeError(msg)
        return place


def _identity(storage: torch.UntypedStorage) -> int:
    """Return a number that no other living storage has; tensors that share memory share it."""
    return int(storage._cdata)  # noqa: SLF001 - what torch.save itself goes by


def memory_of(storage: torch.UntypedStorage) -> memoryview | bytes:
    """Return the storage's bytes; the view keeps the storage alive."""
    size = storage.nbytes()
    if size == 0 or storage.device.type == "meta":
        return b"\0" * size
    host = storage if storage.device.type == "cpu" else storage.cpu()  # type: ignore[no-untyped-call]
    array = (ctypes.c_char * size).from_address(host.data_ptr())
    array._storage = host  # type: ignore[attr-defined]  # noqa: SLF001 - ties the lifetimes
    return memoryview(array).cast("B")


def _info(name: str, tensor: torch.Tensor, records: Mapping[int, str]) -> TensorInfo:
    dense = tensor.layout is torch.strided and not tensor.is_nested
    record = records.get(_identity(tensor.untyped_storage()), "") if dense else ""
    return TensorInfo(name, str(tensor.dtype).removeprefix("torch."), _shape(tensor), record)


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the sizes; a nested tensor has no single one in the dimensions along which its parts differ."""
    if not tensor.is_nested:
        return tuple(tensor.shape)
    return (tensor.size(0),)
