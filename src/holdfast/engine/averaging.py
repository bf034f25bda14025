"""The weighted mean of several checkpoints' tensors, on its way into a file: one storage after the other.

The result has the shape of one of them, the newest, and every byte of it that is not averaged. A storage is
averaged when its turn to be written comes: what is in memory is that storage, one of another source, and
their sum in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from holdfast.engine.commit import finisher, save_errors
from holdfast.engine.filling import give_back
from holdfast.engine.peeking import Peek
from holdfast.errors import HoldfastError, SaveError
from holdfast.format.writing import Part, stream
from holdfast.memory import address_of, reserve
from holdfast.records import Facts, Manifest
from holdfast.snapshot import Snapshot, capture, memory_of
from holdfast.storage import Store

_ALIGNED = 64


@dataclass(frozen=True)
class Source:
    """One of the checkpoints: how much it counts, and the tensors of its model by their names there."""

    look: Peek
    weight: float
    tensors: Mapping[str, torch.Tensor]


class Room:
    """Memory for tensors of another type, which takes nothing until they are computed."""

    def __init__(self, size: int) -> None:
        """Have room for tensors of this many bytes in all, ``tensors`` of them at most."""
        self._memory = reserve(size)
        self._view = memoryview(self._memory)
        self._address = address_of(self._view)
        self._taken = 0

    @staticmethod
    def size_of(size: int) -> int:
        """Return the room that a storage of a size takes."""
        return -(-size // _ALIGNED) * _ALIGNED

    def take(self, size: int) -> torch.UntypedStorage:
        """Return a storage of zeros; ``size`` is more than 0."""
        begin, self._taken = self._taken, self._taken + self.size_of(size)
        return torch.frombuffer(self._view[begin : begin + size], dtype=torch.uint8).untyped_storage()

    def drop(self, storage: torch.UntypedStorage) -> None:
        """Give back the memory of a storage, if it lies here."""
        begin = storage.data_ptr() - self._address
        if 0 <= begin < self._taken:
            give_back(self._memory, begin, begin + storage.nbytes())


@dataclass(frozen=True)
class Averaging:
    """What is to be averaged.

    Attributes:
        base: the source that the result takes its shape and all else from; one of the ``sources``.
        sources: all of them; their weights add up to 1.
        targets: by name, where the averages go: the base's own tensors, or such as stand in their places in the state.
        room: where the latter lie.

    """

    base: Source
    sources: Sequence[Source]
    targets: Mapping[str, torch.Tensor]
    room: Room | None = None

    def write(self, store: Store, name: str, state: object, facts: Facts, gate: Callable[[], None]) -> Manifest:
        """Commit a state that holds the targets, under a name; on an error nothing has changed.

        Raises:
            DamagedCheckpointError: if a source is not as it was written.
            SaveError: naming the path and the cause.

        """
        written: list[Manifest] = []
        try:
            with save_errors(store.path(name)):
                snapshot = capture(state)
                parts = self._parts(snapshot)
                store.put(name, stream(parts, finisher(facts, snapshot, written.append)), gate=gate)
        except SaveError as error:
            if isinstance(error.__cause__, HoldfastError):  # it says more than that there is no file
                raise error.__cause__ from None
            raise
        return written[0]

    def _parts(self, snapshot: Snapshot) -> Iterator[Part]:
        names: dict[int, list[str]] = {}
        for name, target in self.targets.items():
            names.setdefault(target.untyped_storage().data_ptr(), []).append(name)
        yield from snapshot.leaders
        for place, storage in enumerate(snapshot.storages):
            if storage.nbytes() and storage.device.type == "cpu":
                self._compute(names.get(storage.data_ptr(), ()))
                self.base.look.hold(storage)
            # Memory that may be written to would be taken to stay as it is until the end; it is used again.
            yield Part(f"data/{place}", memoryview(memory_of(storage)).toreadonly())
            self.base.look.forget()
            if self.room is not None:
                self.room.drop(storage)
        yield snapshot.trailer

    def _compute(self, names: Sequence[str]) -> None:
        """Average the tensors of one storage, each view once: all sums are there before the first is put in place."""
        views = {_view(self.targets[name]): name for name in names}
        sums = {name: _zeros(self.targets[name]) for name in views.values()}
        for source in (*(item for item in self.sources if item is not self.base), self.base):
            for name, total in sums.items():
                _add(total, source.look.values(source.tensors[name]), source.weight)
            if source is not self.base:
                source.look.forget()
        for name, total in sums.items():
            _put(total, self.targets[name].detach())


def averages(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is one of real or complex numbers that lie in memory as they are."""
    wanted = tensor.is_floating_point() or tensor.is_complex()
    return wanted and tensor.layout is torch.strided and not tensor.is_nested and tensor.device.type == "cpu"


def _view(tensor: torch.Tensor) -> tuple[object, ...]:
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj()


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tensor.shape, dtype=torch.complex128 if tensor.is_complex() else torch.float64)


def _add(total: torch.Tensor, value: torch.Tensor, weight: float) -> None:
    if value.element_size() == 1:  # the types of 8 bits are stored and converted, and that is all
        value = value.to(total.dtype)
    total.add_(value, alpha=weight)


def _put(total: torch.Tensor, target: torch.Tensor) -> None:
    """Round to the target's type; of elements that are one in memory only the first is written."""
    for place, (size, step) in enumerate(zip(target.shape, target.stride(), strict=True)):
        if step == 0 and size > 1:
            total, target = total.narrow(place, 0, 1), target.narrow(place, 0, 1)
    target.copy_(total)
