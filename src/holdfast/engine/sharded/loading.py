"""Filling a state from a sharded checkpoint, by any number of ranks, whatever number saved it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint._sharded_tensor_utils import _flatten_sharded_tensors
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, create_default_local_load_plan
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem

from holdfast.engine.sharded.flattening import Keys, Leaf, Path, leaves
from holdfast.engine.sharded.reading import Reading
from holdfast.engine.sharded.resting import Resting
from holdfast.errors import DamagedCheckpointError, HoldfastError, LoadError, printable
from holdfast.ranks import Ranks

T = TypeVar("T")
_FEW = 5  # names in a message


class Filling(DefaultLoadPlanner):
    """Fills a nested state in place, under its own keys of whatever type."""

    def __init__(self, reading: Reading, state: dict[Any, Any], metadata: Metadata) -> None:
        super().__init__()
        self._reading = reading
        self._leaves: dict[str, Leaf] = {leaf.name: leaf for leaf in leaves(state)}
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

    def fill() -> tuple[str, ...]:
        resting = Resting(path, verify=verify)
        reading = Reading(resting, allow, allow_unsafe=False)
        filling = Filling(reading, into, resting.metadata)
        reading.read(filling.plan(resting.path, partial=partial).items, filling)
        return filling.missing

    return alike(ranks or Ranks(), fill, os.fspath(path))


def load_sharded(path: str | os.PathLike[str], *, allow: Sequence[Any] = (), verify: bool = True) -> dict[Any, Any]:
    """Return the whole state of a sharded checkpoint, nested, every tensor whole and on this host; by one process.

    Raises:
        LoadError: as ``read_sharded``.

    """
    resting = Resting(path, verify=verify)
    paths = resting.metadata.planner_data or {}
    state: dict[Any, Any] = {}
    for name in resting.metadata.state_dict_metadata:
        place(state, tuple(paths.get(name, (name,))), resting.keys)
    for path_of_none in resting.keys.empty:
        place(state, path_of_none, resting.keys, {})
    read_sharded(path, state, allow=allow, verify=verify)
    return state


def place(state: dict[Any, Any], path: Path, keys: Keys, value: Any = None) -> None:
    """Make room for a value on its path: mappings for texts, lists for numbers."""
    holder: Any = state
    for depth, part in enumerate(path):
        last = depth + 1 == len(path)
        empty: Any = value if last else [] if type(path[depth + 1]) is int else {}
        if type(part) is int and isinstance(holder, list):
            holder.extend([None] * (part + 1 - len(holder)))
            if holder[part] is None:
                holder[part] = empty
            holder = holder[part]
        else:
            key = int(part) if path[:depth] in keys.numbered else part
            holder = holder.setdefault(key, empty)


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
