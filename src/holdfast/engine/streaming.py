"""Writing a state whose tensors are not there yet: each is made when its turn comes, and goes when it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from holdfast.engine.commit import finisher, save_errors
from holdfast.format.writing import Part, stream
from holdfast.records import Facts, Manifest
from holdfast.snapshot import Snapshot, capture
from holdfast.snapshot.capture import memory_of
from holdfast.storage import Store

PIECE = 1 << 24  # bytes of a tensor that are made at a time, where that can be

Make = Callable[[], torch.Tensor]


class Promises:
    """Stands in for tensors by others that have a place and no bytes: memory that nobody touches takes none."""

    def __init__(self) -> None:
        """Promise nothing yet."""
        self._made: dict[int, Make] = {}

    def promise(self, shape: Sequence[int], dtype: torch.dtype, make: Make) -> torch.Tensor:
        """Return a stand-in for what ``make`` will return: a tensor of this shape and dtype."""
        tensor = torch.empty(tuple(shape), dtype=dtype, device="cpu")
        if tensor.numel():
            self._made[tensor.untyped_storage().data_ptr()] = make
        return tensor

    def kept(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return what was promised for a tensor; itself if it is no stand-in."""
        make = self._made.get(tensor.untyped_storage().data_ptr()) if tensor.device.type == "cpu" else None
        return tensor if make is None else make()

    def parts(self, snapshot: Snapshot) -> Iterator[Part]:
        """Yield the records of a captured state, with what was promised in place of the stand-ins."""
        yield from snapshot.leaders
        for place, storage in enumerate(snapshot.storages):
            make = self._made.get(storage.data_ptr()) if storage.device.type == "cpu" else None
            yield Part(f"data/{place}", memory_of(storage) if make is None else bytes_of(make()))
        yield snapshot.trailer


def write_promised(  # noqa: PLR0913 - what is written, where, and who is told
    store: Store,
    name: str,
    state: object,
    facts: Facts,
    promises: Promises,
    *,
    advance: Callable[[int], None],
) -> Manifest:
    """Commit a state with stand-ins under a name, in memory of its largest tensor; as ``write_checkpoint`` does.

    ``advance`` is called with the bytes of each piece that was handed on.

    Raises:
        SaveError: naming the path and the cause.

    """
    written: list[Manifest] = []
    with save_errors(store.path(name)):
        snapshot = capture(state)
        chunks = stream(promises.parts(snapshot), finisher(facts, snapshot, written.append))
        store.put(name, counted(chunks, advance))
    return written[0]


def counted(chunks: Iterator[bytes | memoryview], advance: Callable[[int], None]) -> Iterator[bytes | memoryview]:
    """Yield the chunks, and tell of the bytes of each when the next one is asked for."""
    for chunk in chunks:
        yield chunk
        advance(len(memoryview(chunk).cast("B")))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a dense tensor's elements in order; a view of them where they lie so already."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    start = plain.storage_offset() * plain.element_size()
    return memoryview(memory_of(plain.untyped_storage()))[start : start + plain.numel() * plain.element_size()]
