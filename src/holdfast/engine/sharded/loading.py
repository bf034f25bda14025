"""Filling a state from a sharded checkpoint, by any number of ranks, whatever number saved it."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint._sharded_tensor_utils import _flatten_sharded_tensors
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, create_default_local_load_plan
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem

from holdfast.engine.sharded.flattening import Leaf, leaves, unflatten
from holdfast.engine.sharded.reading import Reading
from holdfast.engine.sharded.resting import Resting, at_rest
from holdfast.errors import DamagedCheckpointError, HoldfastError, LoadError, printable
from holdfast.ranks import Ranks

T = TypeVar("T")
_FEW = 5  # names in a message
_TO_COME = object()  # stands where a value or a tensor is going to be


class Filling(DefaultLoadPlanner):
    """Fills a nested state in place, under its own keys of whatever type."""

    def __init__(self, reading: Reading, found: dict[str, Leaf], metadata: Metadata) -> None:
        super().__init__()
        self._reading = reading
        self._leaves = found
        self.metadata = metadata
        self.missing: tuple[str, ...] = ()

    def plan(self, path: str, *, partial: bool) -> LoadPlan:
        """Return what is to be read.

        Raises:
            LoadError: if the checkpoint has not what the state wants, or in another shape.

        """
        assert self.metadata is not None  # noqa: S101 - given at its making
        known = self.metadata.state_dict_metadata
        self.missing = tuple(name for name in self._leaves if name not in known)
        if self.missing and not partial:
            raise LoadError(printable(f"{path} lacks what is to be loaded: {_some(self.missing)}"))
        flat = {name: self._target(leaf, known[name]) for name, leaf in self._leaves.items() if name in known}
        for name, value in flat.items():
            saved = known[name]
            check_covered(path, name, saved)
            if isinstance(saved, TensorStorageMetadata) and _is_tensor(value) and saved.size != value.size():
                msg = f"{path}: {name} is of {list(saved.size)}, and what it is loaded into of {list(value.size())}"
                raise LoadError(printable(msg))
        if any(isinstance(value, ShardedTensor) for value in flat.values()):
            flat = _flatten_sharded_tensors(flat)
        self.state_dict = flat
        return create_default_local_load_plan(flat, self.metadata, strict=False)

    def _target(self, leaf: Leaf, saved: object) -> Any:
        """Return the tensor that is to be filled: a new one, where the state holds none and one was saved."""
        if not isinstance(saved, TensorStorageMetadata) or _is_tensor(leaf.value):
            return leaf.value
        made = torch.empty(saved.size, dtype=saved.properties.dtype, device="cpu")
        leaf.holder[leaf.key] = made
        return made

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Put a value in its place."""
        leaf = self._leaves[read_item.dest_index.fqn]
        leaf.holder[leaf.key] = self._reading.load_value(leaf.name, value)


def read_sharded(  # noqa: PLR0913 - what is loaded, into what, by whom, and how
    path: str | os.PathLike[str],
    into: dict[Any, Any],
    *,
    ranks: Ranks | None = None,
    allow: Sequence[Any] = (),
    verify: bool = True,
    partial: bool = False,
) -> tuple[str, ...]:
    """Fill a nested state in place from a sharded checkpoint, ours or plain DCP's; called on every rank.

    Each rank reads what its own tensors want, and checks every byte that it reads. Tensors are written over while
    their bytes are checked: where a load fails, some may hold what was read.

    Args:
        path: the directory.
        into: the state: tensors of any kind, sharded as they are to be; other values are replaced. Where it has a
            value and the checkpoint a tensor, it gets the whole tensor.
        ranks: those that load together; None: this one alone.
        allow: further classes that the safe loader may use for values.
        verify: whether to check the bytes. Those of plain DCP have no digests of their own but torch's.
        partial: whether the checkpoint may lack what the state wants.

    Returns:
        The names that the state has and the checkpoint lacks.

    Raises:
        CheckpointNotFoundError: if there is none.
        DamagedCheckpointError: naming the file, the tensor, and the rank that found it: the same on every rank.
        UnsafeCheckpointError: if a value needs classes that are not allowed.
        LoadError: if the state and the checkpoint do not fit.

    """
    ranks = ranks or Ranks()

    def fill(resting: Resting) -> tuple[int, tuple[str, ...]]:
        if ranks.leads:
            resting.check_files()
        reading = Reading(resting, allow, allow_unsafe=False)
        filling = Filling(reading, {leaf.name: leaf for leaf in leaves(into)}, resting.metadata)
        reading.read(filling.plan(resting.path, partial=partial).items, filling)
        return 0 if ranks.alone else resting.identity, filling.missing

    where = os.fspath(path)
    identity, missing = alike(ranks, lambda: at_rest(path, fill, verify=verify), where)
    if len(set(ranks.exchange(identity, at=f"the load of {where}"))) > 1:
        msg = f"{printable(where)} was replaced by another checkpoint while the ranks read it: load it again"
        raise LoadError(msg)
    return missing


def load_sharded(path: str | os.PathLike[str], *, allow: Sequence[Any] = (), verify: bool = True) -> dict[Any, Any]:
    """Return the whole state of a sharded checkpoint, nested, every tensor whole and on this host; by one process.

    Raises:
        LoadError: as ``read_sharded``.

    """

    def load(resting: Resting) -> dict[Any, Any]:
        resting.check_files()
        reading = Reading(resting, allow, allow_unsafe=False)
        state, found = nested(resting, dict.fromkeys(resting.metadata.state_dict_metadata, _TO_COME))
        filling = Filling(reading, found, resting.metadata)
        reading.read(filling.plan(resting.path, partial=False).items, filling)
        return state

    return alike(Ranks(), lambda: at_rest(path, load, verify=verify), os.fspath(path))


def nested(resting: Resting, values: Mapping[str, Any]) -> tuple[dict[Any, Any], dict[str, Leaf]]:
    """Return the nested state of a checkpoint with these values, and where each is kept.

    Raises:
        DamagedCheckpointError: if no state has the names that the checkpoint has.

    """
    known = resting.metadata.planner_data or {}
    try:
        return unflatten({name: tuple(known.get(name, (name,))) for name in values}, values, resting.keys)
    except ValueError as error:
        raise DamagedCheckpointError(resting.path, "the metadata", f"{error}"[:300]) from error


def check_covered(path: str, name: str, saved: object) -> None:
    """See that the parts of a tensor make all of it: what has none would be whatever the memory held.

    Raises:
        DamagedCheckpointError: if they do not.

    """
    if isinstance(saved, TensorStorageMetadata):
        there, whole = sum(math.prod(chunk.sizes) for chunk in saved.chunks), math.prod(saved.size)
        if there != whole:
            problem = f"its parts have {there} elements, and it has {whole}: ranks that had a part did not save it"
            raise DamagedCheckpointError(path, name, problem)


def alike(ranks: Ranks, do: Callable[[], T], path: str) -> T:
    """Do something on every rank; where it fails on any, raise that error on all: the first rank's, which it names.

    Raises:
        LoadError: and its kinds.

    """
    mine: HoldfastError | None = None
    value: Any = None
    try:
        value = do()
    except HoldfastError as error:
        mine = error
    except Exception as error:  # noqa: BLE001 - told to every rank, and raised on each
        mine = LoadError(printable(f"{path} cannot be loaded: {type(error).__name__}: {error}"))
        mine.__cause__ = error
    told = ranks.exchange(mine, at=f"the load of {path}")
    for rank, problem in enumerate(told):
        if problem is not None:
            raise _named(mine if rank == ranks.rank and mine is not None else problem, rank, ranks)
    return value  # type: ignore[no-any-return]


def _named(error: HoldfastError, rank: int, ranks: Ranks) -> HoldfastError:
    if ranks.alone:
        return error
    if isinstance(error, DamagedCheckpointError):
        made: HoldfastError = DamagedCheckpointError(
            error.path, error.record, f"{error.problem} (found by rank {rank})"
        )
    elif type(error) is LoadError:
        made = LoadError(f"rank {rank} of {ranks.size}: {error}")
    else:
        return error
    made.__cause__ = error.__cause__
    return made


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
