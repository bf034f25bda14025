"""All ranks do the same thing: rank 0 decides, the others are told. The only collectives of the project.

They run on process groups of our own (gloo, whatever the training uses), so that they are never interleaved with
the training's: one for the thread that trains, and one for the thread that writes behind it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from holdfast.errors import HoldfastError, RankError

T = TypeVar("T")

_HEAD = 8  # bytes in which a message says how long it is
_SMALL = 4096  # bytes of a message that go with its length, in one broadcast


@dataclass(frozen=True)
class _Answer:
    """What rank 0 tells: a value, or what went wrong."""

    at: str
    value: Any = None
    error: HoldfastError | None = None


class Ranks:
    """The ranks of one training, as one of them sees them.

    Every method is called on every rank, in the same order, from one thread. With one rank nothing is sent.

    Args:
        group: a gloo group of all ranks; None where there is one.
        behind: the same ranks on a group for the thread that writes behind the training.

    Attributes:
        rank: this one, from 0.
        size: how many there are.
        behind: the same ranks, for the thread that writes behind the training.

    """

    def __init__(self, group: dist.ProcessGroup | None = None, behind: Ranks | None = None) -> None:
        """Ask the group who this is."""
        self._group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self.behind = behind if behind is not None else self

    @property
    def leads(self) -> bool:
        """Tell whether this is rank 0, which decides."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Tell whether there is no other rank."""
        return self.size == 1

    def agree(self, decide: Callable[[], T], *, at: str = "") -> T:
        """Return what rank 0 decides, on every rank.

        Args:
            decide: called on rank 0 alone; its answer has to be picklable.
            at: what the ranks are doing: where one of them is doing something else, all raise.

        Raises:
            HoldfastError: rank 0's, on every rank.
            RankError: if the ranks are not doing the same.

        """
        if self.alone:
            return decide()
        answer = _Answer(at)
        if self.leads:
            try:
                answer = _Answer(at, decide())
            except HoldfastError as error:
                answer = _Answer(at, error=error)
        told: _Answer = self._broadcast(answer)
        if told.at != at:
            msg = f"rank {self.rank} is at {at or '?'}, and rank 0 at {told.at or '?'}: call the same on every rank"
            raise RankError(msg, rank=self.rank)
        if told.error is not None:
            raise told.error
        result: T = told.value
        return result

    def exchange(self, value: T, *, at: str = "") -> list[T]:
        """Return every rank's value, in the order of the ranks, on every rank."""
        del at
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def gather(self, value: T, *, at: str = "") -> list[T]:
        """Return every rank's value, in the order of the ranks, on rank 0; nothing on the others."""
        del at
        if self.alone:
            return [value]
        values: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, values, group=self._group, group_dst=0)
        return values or []

    def together(self, do: Callable[[], T], *, at: str = "") -> T:
        """Do something on every rank, and return this rank's result once all have done it.

        Raises:
            HoldfastError: if it failed on this rank with one.
            RankError: if it failed on any rank: it names the rank and the cause.

        """
        if self.alone:
            return do()
        mine: Any = None
        problem: Exception | None = None
        try:
            mine = do()
        except Exception as error:  # noqa: BLE001 - told to every rank, and raised on each
            problem = error
        causes = self.exchange("" if problem is None else f"{type(problem).__name__}: {problem}", at=at)
        if problem is not None:
            raise problem
        failed = [rank for rank, cause in enumerate(causes) if cause]
        if failed:
            msg = f"rank {failed[0]} failed{f' at {at}' if at else ''}: {causes[failed[0]]}"
            raise RankError(msg, rank=failed[0])
        result: T = mine
        return result

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """Return, for each place, the highest number that any rank has there: one small tensor."""
        if self.alone:
            return list(numbers)
        tensor = torch.tensor(list(numbers), dtype=torch.int64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return [int(number) for number in tensor]

    def _broadcast(self, value: Any) -> Any:
        """Send rank 0's object to all: in one broadcast if it is small, else in two."""
        data = pickle.dumps(value) if self.leads else b""
        small = torch.zeros(_SMALL, dtype=torch.uint8)
        if self.leads:
            head = len(data).to_bytes(_HEAD, "little") + data[: _SMALL - _HEAD]
            small[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        dist.broadcast(small, group=self._group, group_src=0)
        length = int.from_bytes(bytes(small[:_HEAD].tolist()), "little")
        whole = small[_HEAD : _HEAD + length]
        if length > _SMALL - _HEAD:
            whole = torch.frombuffer(bytearray(data or length), dtype=torch.uint8)
            dist.broadcast(whole, group=self._group, group_src=0)
        return pickle.loads(whole.numpy().tobytes())  # noqa: S301 - from rank 0 of this very training


@dataclass
class _Made:
    """The ranks of the default group, and which group that was."""

    world: Any = None
    ranks: Ranks = field(default_factory=Ranks)


_made = _Made()


def ranks_here() -> Ranks:
    """Return the ranks of torch's default process group; one rank if there is none.

    The first call for a group makes groups of our own: call it on every rank.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Ranks()
    if _made.world is not dist.group.WORLD:
        behind = Ranks(dist.new_group(backend="gloo"))
        _made.world, _made.ranks = dist.group.WORLD, Ranks(dist.new_group(backend="gloo"), behind)
    return _made.ranks
