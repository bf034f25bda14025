"""One sharded save between its decision and its commit, on one rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from holdfast.engine.flight import Flight, Watched
from holdfast.engine.order import SaveStats
from holdfast.engine.sharded.image import Part
from holdfast.format.writing import Part as Record
from holdfast.snapshot import Snapshot
from holdfast.snapshot.devices import Crossing
from holdfast.snapshot.image import Taken

_NOTHING = torch.empty(0, dtype=torch.uint8)


@dataclass
class ShardedFlight(Flight):
    """A save of which each rank has its part, as ``Flight`` is one of a single file.

    ``error``, ``link_error``, ``committed`` and ``stamp`` are the same on every rank; the tensors in ``manifest`` are
    known on rank 0 alone.
    """


def rank_part(parts: Sequence[Part]) -> Snapshot:
    """Return this rank's tensors as a flight knows a state: each a storage of its own, in the order of the parts."""
    tensors = [(part.name, part.data) for part in parts if isinstance(part.data, torch.Tensor)]
    storages = tuple(tensor.untyped_storage() for _, tensor in tensors)
    plain = {place: [tensor] for place, (_, tensor) in enumerate(tensors) if tensor.is_contiguous()}
    return Snapshot((), storages, plain, tensors, Record("", b""))


def watch(snapshot: Snapshot, places: Iterable[int], stepped: Mapping[int, Sequence[torch.Tensor]]) -> list[Watched]:
    """Return what is looked at before a later copy counts: the tensors of the state, and those that are trained."""
    places = list(places)
    watched = [Watched.of(place, tensor) for place in places for tensor in snapshot.tensors[place]]
    return watched + [
        Watched.of(place, tensor, ours=False)
        for place in places
        for tensor in stepped[snapshot.storages[place].data_ptr()]
    ]


def grounded(path: str, stats: SaveStats) -> ShardedFlight:
    """Return a flight of a state that this rank could not take: it is there to hear what becomes of the save."""
    return ShardedFlight(path, rank_part(()), Taken(Crossing(_NOTHING)), stats=stats)
