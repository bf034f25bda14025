"""All ranks do the same thing: rank 0 decides, the others are told. Nothing else here is collective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from holdfast.errors import HoldfastError

T = TypeVar("T")


def agree(decide: Callable[[], T], *, is_leader: bool, broadcast: Callable[[Any], Any] | None) -> T:
    """Return what rank 0 decides, on every rank.

    Args:
        decide: called on rank 0 alone; its answer has to be picklable.
        is_leader: whether this is rank 0.
        broadcast: sends rank 0's object to all and returns it; None where there is one rank.

    Raises:
        HoldfastError: rank 0's, on every rank.

    """
    if broadcast is None:
        return decide()
    answer: tuple[Any, HoldfastError | None] = (None, None)
    if is_leader:
        try:
            answer = (decide(), None)
        except HoldfastError as error:
            answer = (None, error)
    value, problem = broadcast(answer)
    if problem is not None:
        raise problem
    result: T = value
    return result


def process_rank() -> int:
    """Return this process's rank in the default group; 0 without one."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def process_broadcast() -> Callable[[Any], Any] | None:
    """Return a broadcast from rank 0 of the default group, or None where there is one rank."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None

    def broadcast(value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    return broadcast
