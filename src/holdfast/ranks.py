"""All ranks do the same thing: rank 0 decides, the others are told. The only collectives of the project.

They run on process groups of our own (gloo, whatever the training uses), so that they are never interleaved with
the training's: one for the thread that trains, and one for the thread that writes behind it.

Every call is one round: each rank tells rank 0 what it is at, and rank 0 answers all. So ranks that do different
things are found out by the call itself, and no message is ever taken for another.
"""

from __future__ import annotations

import ctypes
import logging
import pickle
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from holdfast.errors import RankError
from holdfast.rank_answers import APART, ERROR, FINE, MORE, answer_of, failed
from holdfast.rank_frames import ROOM, UP, answer_in, answered, framed, length_of, place_of, said, told_in, words_of
from holdfast.rank_meeting import meet
from holdfast.rank_watch import Notice, Watch, cause_of

log = logging.getLogger("holdfast")

T = TypeVar("T")

_SLICE = timedelta(seconds=0.2)  # between two looks at whether the others are still there
_GRACE = 1.0  # seconds in which what is on its way may still come, once another rank is known to be gone
_LONG = 60.0  # seconds of waiting after which it is said
_NEVER = timedelta(days=365)  # torch's own limit: ours is the watch


class Ranks:
    """The ranks of one training, as one of them sees them.

    Every method but ``fail`` is called on every rank, in the same order, from one thread. With one rank nothing is
    sent. A rank that waits for others waits as long as they live, and no longer: one that fails, ends or dies is a
    ``RankError`` on all. From then on every call raises it at once.

    Args:
        group: a gloo group of all ranks; None where there is one.
        behind: the same ranks on a group for the thread that writes behind the training.
        watch: looks after the others while this one waits.
        name: the group's, the same on every rank.

    Attributes:
        rank: this one, from 0.
        size: how many there are.
        behind: the same ranks, for the thread that writes behind the training.

    """

    def __init__(
        self,
        group: Any = None,
        behind: Ranks | None = None,
        watch: Any = None,
        name: str = "training",
    ) -> None:
        """Ask the group who this is."""
        self._group, self._watch, self._name = group, watch, name
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self.behind = behind if behind is not None else self
        self._broken: RankError | None = None
        self._number = self._left = 0
        self._over = True  # whether the newest call came to its end on this rank

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
            at: what the ranks are doing: where one of them is doing something else, all raise. What follows
                " (" is told then, and not compared.

        Raises:
            HoldfastError: rank 0's, on every rank.
            RankError: if rank 0 failed with another error (which is raised there), if the ranks are not doing the
                same, or if one is gone.

        """
        if self.alone:
            return decide()
        kept: list[T] = []

        def answer(_: list[bytes]) -> bytes:
            kept.append(decide())
            return pickle.dumps(kept[0])

        told = self._round("agree", at, b"", answer)
        result: T = kept[0] if kept else pickle.loads(told)  # noqa: S301 - from rank 0 of this very training
        return result

    def exchange(self, value: T, *, at: str = "") -> list[T]:
        """Return every rank's value, in the order of the ranks, on every rank. Raises ``RankError`` as ``agree``."""
        if self.alone:
            return [value]
        told = self._round("exchange", at, pickle.dumps(value), pickle.dumps)
        return [pickle.loads(one) for one in pickle.loads(told)]  # noqa: S301 - from ranks of this very training

    def gather(self, value: T, *, at: str = "") -> list[T]:
        """Return every rank's value on rank 0; nothing on the others. Raises ``RankError`` as ``agree``."""
        if self.alone:
            return [value]
        kept: list[bytes] = []

        def answer(told: list[bytes]) -> bytes:
            kept.extend(told)
            return b""

        self._round("gather", at, pickle.dumps(value), answer)
        return [pickle.loads(one) for one in kept]  # noqa: S301 - from ranks of this very training

    def together(self, do: Callable[[], T], *, at: str = "") -> T:
        """Do something on every rank, and return this rank's result once all have done it.

        Raises:
            Exception: whatever it failed with on this rank.
            RankError: if it failed on any other rank: it names the rank and the cause.

        """
        if self.alone:
            return do()
        mine: Any = None
        problem: Exception | None = None
        try:
            mine = do()
        except Exception as error:  # noqa: BLE001 - told to every rank, and raised on each
            problem = error
        except BaseException as error:
            self.fail(error)
            raise
        cause = b"" if problem is None else cause_of(problem).encode()
        causes: list[bytes] = pickle.loads(self._round("together", at, cause, pickle.dumps))  # noqa: S301 - ours
        if problem is not None:
            raise problem
        worse = [rank for rank, cause in enumerate(causes) if cause]
        if worse:
            raise failed(worse[0], causes[worse[0]].decode(errors="replace"), at)
        result: T = mine
        return result

    def highest(self, numbers: Sequence[int], *, at: str = "") -> list[int]:
        """Return, for each place, the highest number that any rank has there: one small message each way."""
        if self.alone:
            return list(numbers)
        row = struct.Struct(f"<{len(numbers)}q")

        def answer(told: list[bytes]) -> bytes:
            return row.pack(*(max(column) for column in zip(*map(row.unpack, told), strict=True)))

        return list(row.unpack(self._round("highest", at or str(len(numbers)), row.pack(*numbers), answer)))

    def fail(self, error: BaseException) -> None:
        """Tell all others, wherever they wait or will, that this rank cannot go on; call it on the one that fails.

        They raise a ``RankError`` that names this rank and the cause. It waits for nobody.
        """
        if self.alone or self._broken is not None:
            return
        self._broken = error if isinstance(error, RankError) else failed(self.rank, cause_of(error), "")
        self._post(self._broken if isinstance(error, RankError) else error)

    def leave(self, error: BaseException) -> bool:
        """After an exception: tell whether every rank has one, after the same calls, and may go on together.

        Ranks wait for each other for some seconds. If not all come, those that did tell the others that they
        cannot go on, as ``fail`` does, and this is False on all of them.
        """
        if self.alone or self._broken is not None:
            return self.alone
        self._left += 1
        where, beyond = f"{self._name}/{self._number}/{self._left}", f"{self._name}/{self._number + 1}"
        if self._over and self._watch.all_come(where, self.size, beyond):
            return True
        self.fail(error)
        return False

    # One round.

    def _round(self, kind: str, at: str, told: bytes, answer: Callable[[list[bytes]], bytes]) -> bytes:
        """Tell rank 0 something, and return its answer."""
        if self._broken is not None:
            raise self._broken
        self._number += 1
        self._over = False
        try:
            return self._talk(said(self._number, kind, at, told), at, answer)
        except BaseException as error:
            if not self._over:
                self.fail(error)
                self._keep()
            raise

    def _talk(self, mine: bytes, at: str, answer: Callable[[list[bytes]], bytes]) -> bytes:
        frames = self._gathered(framed(mine, UP), at)
        how, data, problem = FINE, b"", None
        if self.leads:
            apart = self._compare(frames)
            longest = max(map(length_of, frames))
            if apart:
                how, data = APART, pickle.dumps(apart)
            elif longest > UP:
                self._answered(MORE, longest.to_bytes(8, "little"), at)
                frames = self._gathered(framed(mine, longest), at)
            if not apart:
                how, data, problem = answer_of(answer, [told_in(one) for one in frames], at)
        how, data = self._answered(how, data, at)
        if how == MORE:
            self._gathered(framed(mine, int.from_bytes(data, "little")), at)
            how, data = self._answered(FINE, b"", at)
        self._over = True
        self._watch.done[self._name] = self._number
        if how == APART:
            rank, message = pickle.loads(data)  # noqa: S301 - from rank 0 of this very training
            self._broken = RankError(message, rank=rank)
            raise self._broken
        if how == ERROR:
            raise problem or pickle.loads(data)  # noqa: S301 - from rank 0 of this very training
        return data

    def _compare(self, heads: list[bytes]) -> tuple[int, str] | None:
        """Rank 0 only: return which rank does something else, and a sentence on it."""
        here = place_of(heads[0])
        for rank, head in enumerate(heads):
            if place_of(head) != here:
                msg = f"the ranks have come apart: rank {rank} is at {words_of(head)}, rank 0 at {words_of(heads[0])}"
                return rank, f"{msg}. Call the same methods of holdfast on every rank, in the same order"
        return None

    def _gathered(self, frame: bytes, at: str) -> list[bytes]:
        """Give rank 0 a message of the same length from each rank."""
        mine = torch.frombuffer(bytearray(frame), dtype=torch.uint8)
        everyone = [torch.empty_like(mine) for _ in range(self.size if self.leads else 0)]
        options = dist.GatherOptions()
        options.rootRank, options.timeout = 0, _NEVER
        self._finish(lambda: self._group.gather([everyone] if self.leads else [], [mine], options), at)
        return [one.numpy().tobytes() for one in everyone]

    def _answered(self, how: int, data: bytes, at: str) -> tuple[int, bytes]:
        """Tell all what rank 0 says: in one message if it is short, else in two."""
        how, length, begun = answer_in(self._sent(answered(how, data), at))
        return how, begun if length <= ROOM else self._sent(data if self.leads else bytes(length), at)

    def _sent(self, data: bytes, at: str) -> bytes:
        tensor = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = 0, 0, _NEVER
        self._finish(lambda: self._group.broadcast([tensor], options), at)
        return data if self.leads else tensor.numpy().tobytes()

    # Waiting for the others.

    def _finish(self, begin: Callable[[], Any], at: str) -> None:
        """Wait for a collective as long as the others live."""
        try:
            work = begin()
        except RuntimeError as error:  # a connection that had broken before
            self._lost(error, at)
        if not self._is_over(work, at):
            with self._watch.waiting(f"{self._name}/{self._number}"):
                self._await(work, at)

    def _await(self, work: Any, at: str) -> None:
        begun, told, gone_since = time.monotonic(), False, 0.0
        while not self._is_over(work, at):
            now = time.monotonic()
            gone = self._watch.verdict(self._name, self._number)
            if gone is not None:
                gone_since = gone_since or now
                if now - gone_since > _GRACE / 2:
                    self._break(*gone, at, work)
            if now - begun > _LONG and not told:
                told = True
                log.warning("rank %d waits for the others since a minute, at %s", self.rank, at or "a call")

    def _is_over(self, work: Any, at: str) -> bool:
        """Tell whether a collective is done, after a moment of waiting for it."""
        try:
            work.wait(_SLICE)
        except RuntimeError as error:
            if not work.is_completed():
                return False
            if not work.is_success():
                self._lost(error, at, work)
        return True

    def _lost(self, error: RuntimeError, at: str, *works: Any) -> None:
        """A connection broke: find out whose."""
        rank, cause = -1, f"the connection to another rank broke: {str(error).partition(' This is typically')[0]}"
        with self._watch.waiting(f"{self._name}/{self._number}"):
            suspect = self._watch.suspect(_GRACE)
        rank, cause = self._watch.verdict(self._name, self._number) or (suspect, cause)
        self._break(rank, cause, at, *works)

    def _break(self, rank: int, cause: str, at: str, *works: Any) -> None:
        self._keep(*works)
        self._broken = failed(rank, cause, at, waited=True)
        self._post(RankError(cause, rank=rank))
        raise self._broken

    def _post(self, error: BaseException) -> None:
        """Tell those who wait: of what this rank has found, or of what it died of itself."""
        found = isinstance(error, RankError)
        rank = error.rank if isinstance(error, RankError) else self.rank
        cause = str(error) if found else cause_of(error)
        self._watch.tell(Notice(rank, cause, self._name), linger=True)

    def _keep(self, *works: Any) -> None:
        """Never destroy a group with a call that will not end: its destructor waits for it, and ``abort`` as well."""
        backend = self._group._get_backend(torch.device("cpu"))  # noqa: SLF001 - torch names it no other way
        for one in (self._group, backend, *works):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


@dataclass
class _Made:
    """The ranks of the default group, and which group that was."""

    world: Any = None
    ranks: Ranks = field(default_factory=Ranks)
    watch: Watch | None = None


_made = _Made()


def ranks_here() -> Ranks:
    """Return the ranks of torch's default process group; one rank if there is none.

    The first call for a group makes groups of our own: call it on every rank.

    Raises:
        RankError: if not all ranks come within the default group's own timeout.

    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Ranks()
    if _made.world is not dist.group.WORLD:
        if _made.watch is not None:
            _made.watch.close()
        _made.ranks, _made.watch = _make()
        _made.world = dist.group.WORLD
    return _made.ranks


def _make() -> tuple[Ranks, Watch]:
    rank, size = dist.get_rank(), dist.get_world_size()
    store: Any = distributed_c10d._get_default_store()  # noqa: SLF001 - torch has no other way to it
    shared, places, missing = meet(store, rank, size, store.timeout)
    if missing:
        seconds = store.timeout.total_seconds()
        msg = f"ranks {missing} have not begun checkpointing within {seconds:.0f} s, as the other ranks have"
        raise RankError(msg, rank=missing[0])
    watch = Watch(shared, rank, places)
    behind = Ranks(dist.new_group(backend="gloo"), watch=watch, name="behind")
    return Ranks(dist.new_group(backend="gloo"), behind, watch), watch
