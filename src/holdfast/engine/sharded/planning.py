"""Which rank writes which part of a state: DCP's planner says, and its plan is kept while the state keeps its shape.

A plan takes a gather from all ranks and a broadcast to them. From one save to the next it hardly ever changes, so
the ranks first ask each other, in one small tensor, whether anyone's part has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint._sharded_tensor_utils import _flatten_sharded_tensors
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.tensor import DTensor

from holdfast.engine.sharded.flattening import Keys, leaves
from holdfast.errors import UNTOUCHED, SaveError
from holdfast.ranks import Ranks


class Planner(DefaultSavePlanner):
    """DCP's planner, with a flattening that says what it loses."""

    def __init__(self) -> None:
        """Plan nothing yet."""
        super().__init__()
        self.keys = Keys()

    def set_up_planner(
        self,
        state_dict: Mapping[str, Any],
        storage_meta: object = None,
        is_coordinator: bool = False,  # noqa: FBT001, FBT002 - DCP's own signature
    ) -> None:
        """Take the state to plan for."""
        del storage_meta
        flat: dict[str, Any] = {}
        paths: dict[str, Any] = {}
        self.keys = Keys()
        for leaf in leaves(state_dict, self.keys):
            if leaf.name in flat:
                msg = f"two values of the state are called {leaf.name!r} once its keys are joined by dots: rename one"
                raise ValueError(msg)
            flat[leaf.name], paths[leaf.name] = leaf.value, leaf.path
        if any(isinstance(value, ShardedTensor) for value in flat.values()):
            flat = _flatten_sharded_tensors(flat)
        self.state_dict = flat
        self.mappings = paths
        self.is_coordinator = is_coordinator


@dataclass(frozen=True)
class Planned:
    """What this rank writes of a state.

    Attributes:
        planner: gives each item's data.
        items: what this rank writes.
        metadata: DCP's account of the whole, on rank 0, without where it is stored.
        all_items: what each rank writes, on rank 0.
        keys: what DCP's flat names lose of the state, as a file has it, on rank 0.
        version: another one for each plan.

    """

    planner: Planner
    items: list[WriteItem]
    metadata: Metadata | None = None
    all_items: list[list[WriteItem]] = field(default_factory=list)
    keys: bytes = b""
    version: int = 0


class Plans:
    """The plan of the last save. Its methods are called on every rank, in the same order."""

    def __init__(self) -> None:
        """Know none yet."""
        self._shape: object = None
        self._last: Planned | None = None

    def plan(self, ranks: Ranks, state: object, path: str) -> Planned:
        """Return what this rank writes of the state.

        Raises:
            SaveError: the same on every rank, if any rank's part cannot be planned.

        """
        planner, problem, shape = Planner(), "", None
        try:
            if not isinstance(state, Mapping):
                msg = f"a sharded state is a mapping of names to values, not {type(state).__name__}"
                raise TypeError(msg)  # noqa: TRY301 - told to every rank as the others are
            planner.set_up_planner(state, is_coordinator=ranks.leads)
            shape = _shape_of(planner)
        except Exception as error:  # noqa: BLE001 - told to every rank, and raised on each
            problem = f"{type(error).__name__}: {error}"
        same = not problem and shape is not None and self._last is not None and shape == self._shape
        if any(ranks.highest([0 if same else 1])) or self._last is None:
            self._shape = None  # until all have agreed on a new one
            fresh = self._anew(ranks, planner, problem, path)
            self._last, self._shape = dataclasses.replace(fresh, planner=Planner()), shape  # no state is kept alive
        return dataclasses.replace(self._last, planner=planner)

    def _anew(self, ranks: Ranks, planner: Planner, problem: str, path: str) -> Planned:
        local = SavePlan([])
        if not problem:
            try:
                local = planner.create_local_plan()
            except Exception as error:  # noqa: BLE001 - told to every rank, and raised on each
                problem = f"{type(error).__name__}: {error}"
        told = ranks.gather((problem, local, planner.keys), at="the plan of a save")
        made: list[Any] = [None, []]

        def decide() -> list[bytes]:
            for rank, (cause, *_) in enumerate(told):
                if cause:
                    msg = f"the checkpoint {path} was not saved: rank {rank} could not plan it: {cause}. {UNTOUCHED}"
                    raise SaveError(msg, path=path)
            plans, made[0] = _together(planner, [plan for _, plan, _ in told], path)
            made[1] = [plan.items for plan in plans]
            return [_mask(plan, final) for (_, plan, _), final in zip(told, plans, strict=True)]

        masks = ranks.agree(decide, at="the plan of a save")
        items = [item for item, kept in zip(local.items, masks[ranks.rank], strict=True) if kept]
        version = 1 if self._last is None else self._last.version + 1
        for *_, others in told:
            planner.keys.add(others)
        return Planned(planner, items, made[0], made[1], planner.keys.encode() if ranks.leads else b"", version)


def _together(planner: Planner, plans: list[SavePlan], path: str) -> tuple[list[SavePlan], Metadata]:
    try:
        return planner.create_global_plan(plans)
    except Exception as error:
        msg = f"the checkpoint {path} was not saved: the ranks' parts do not fit together: {error}. {UNTOUCHED}"
        raise SaveError(msg, path=path) from error


def _mask(plan: SavePlan, final: SavePlan) -> bytes:
    """Return a byte for each item of a rank's plan: whether it is the one that writes it."""
    kept = {item.index for item in final.items}
    return bytes(item.index in kept for item in plan.items)


def _shape_of(planner: Planner) -> object:
    """Return what the plan depends on; None where that cannot be told quickly."""
    shape: list[Any] = [planner.mappings, planner.keys]
    for value in planner.state_dict.values():
        kind = type(value)
        if kind is DTensor:
            local = value._local_tensor  # noqa: SLF001 - to_local() takes ten times as long
            shape.append((value.shape, local.shape, value.dtype, value.placements, value.device_mesh))
        elif isinstance(value, torch.Tensor):
            if isinstance(value, ShardedTensor) or hasattr(value, "__create_write_items__"):
                return None
            shape.append((value.shape, value.dtype))
        elif hasattr(value, "__create_write_items__"):
            return None
        else:
            shape.append(None)
    return shape
