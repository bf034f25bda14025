"""The part of ``ModelCheckpoint`` that sees to what is on its way: committed, counted, forgotten, told.

The same on every rank: rank 0 looks and touches files; the others are told.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import proxy

from holdfast.errors import SaveError
from holdfast.front.failures import FailureWords
from holdfast.front.forgetting import PINNED, forget, look_again, taking
from holdfast.front.leaving import Hearing, Leaving, Removal, leaves_behind, tell
from holdfast.front.planning import Plan, Run, landed
from holdfast.front.preflight import Preflight
from holdfast.front.remaining import Remaining
from holdfast.front.reopening import Stamps, note_stamps
from holdfast.front.save_mode import SaveMode
from holdfast.front.saving import Flight, Saver, SaveStats, Stamp, is_written, link, raise_first
from holdfast.front.sharded import ShardedSaver, is_committed
from holdfast.front.under_way import announce, names_of_others
from holdfast.front.words import Ledger, ranks_here
from holdfast.integrations.callback_mirror import NEEDED, MirrorMixin
from holdfast.integrations.lightning_io import CheckpointIOCore
from holdfast.integrations.lightning_shards import shards_through_us
from holdfast.integrations.trainer_facts import writes_itself
from holdfast.records import LAST
from holdfast.telling import warn

log = logging.getLogger("holdfast")

T = TypeVar("T")

COMMITTED, PENDING = "committed", "pending"


@dataclass(frozen=True)
class Outcome:
    """What became of a write, as rank 0 saw it."""

    primary: str = PENDING
    also: str = PENDING
    error: SaveError | None = None
    before: Stamp = None


@dataclass(frozen=True)
class Pending:
    """A save that is not committed yet: ours, which rank 0 follows, or another plugin's, whose file will appear."""

    plan: Plan
    before: Stamp
    ours: bool
    flight: Flight | None


class SettlingMixin(MirrorMixin, FailureWords):
    """Takes note of commits, forgets what they replace, tells of both."""

    _mode: SaveMode
    _preflight: Preflight
    _remaining: Remaining
    _pending: list[Pending]
    _saver: Saver | ShardedSaver | None  # one that writes shards is on every rank, else on rank 0
    _stamps: Stamps
    _leaving: deque[Leaving]
    _hearings: dict[str, Hearing]
    _spare: str
    _interrupted: bool
    _at = ""  # the event that is being handled, the same on every rank
    stats: SaveStats

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        elsewhere = dict.fromkeys({"_owned", "_pulse", "_uploads", "_second"} & self.__dict__.keys())
        here: dict[str, Any] = {"_saver": None, "_pending": [], "_stamps": {}, "_leaving": deque(), "_hearings": {}}
        return {**self.__dict__, **elsewhere, **here}

    def _rank_zero_warn(self, message: str) -> None:
        warn(message)

    def _warn_of(self, message: str) -> None:
        if message:
            log.warning(message)
            self._rank_zero_warn(message)

    def _rank_zero_info(self, message: str) -> None:
        log.info(message)

    def _as_run(self) -> Run:
        given = [item for pending in self._pending for item in pending.plan.names.items()]
        run, waiting = super()._as_run(), frozenset(name for role, name in given if role != LAST)
        afar = self._elsewhere - ({self._ledger.last.name} if self._ledger.last is not None else set())
        others = names_of_others(self, run.store) | afar
        return replace(run, waiting=waiting, given=others, leaving=self._names_leaving())

    def _names_leaving(self) -> frozenset[str]:
        return frozenset(name for leaving in self._leaving for name in leaving.names)

    def paths_under_way(self) -> Iterable[str]:
        """Return the paths of our own saves that are not known to be committed, and of what is being removed."""
        names = [name for pending in self._pending for name in pending.plan.names.values()]
        return [self._path(name) for name in (*names, *self._names_leaving())]

    def _agree(self, trainer: Any, decide: Callable[[], T]) -> T:
        """Return what rank 0 decides, on every rank; an error of rank 0 is raised on every rank."""
        return decide() if trainer.world_size == 1 else ranks_here().agree(decide, at=self._at)

    def _own_io(self, trainer: Any) -> CheckpointIOCore | None:
        current = getattr(trainer.strategy, "_checkpoint_io", None)
        past = writes_itself(trainer.strategy) and not shards_through_us(trainer.strategy)
        return current if isinstance(current, CheckpointIOCore) and not past else None

    def _is_behind(self, trainer: Any) -> bool:
        """Tell, the same on every rank, whether our own thread writes, behind the training's back."""
        sharded = shards_through_us(trainer.strategy)  # the thread of each rank; without ``async_save`` we wait for it
        return (self._mode.async_save or sharded) and self._own_io(trainer) is not None

    def _inspect(self, run: Run, plan: Plan, error: SaveError | None, before: Stamp) -> Outcome:
        """Rank 0 only: see what is there now, and give it its second name."""
        if error is not None:
            return Outcome(error=error)
        if not is_written(run.store, plan.primary, before):
            return Outcome(before=before)
        directory = run.store.is_local and os.path.isdir(run.store.path(plan.primary))
        if not plan.also or directory:
            return Outcome(COMMITTED)
        try:
            how = link(run.store, plan.primary, plan.also)
        except SaveError as problem:
            return Outcome(COMMITTED, error=problem)
        log.debug("%s is a %s of %s", plan.also, how, plan.primary)
        return Outcome(COMMITTED, COMMITTED)

    def _committed(self, trainer: Any, run: Run, plan: Plan, *, with_last: bool) -> None:
        self.stats.committed += 1
        self._failures.committed()
        if trainer.is_global_zero:
            self._preflight.learn(run, plan.primary)
        self._elsewhere -= set(plan.names.values())
        if self._uploads is not None:
            self._uploads.offer(name for role, name in plan.names.items() if with_last or role != LAST)
        before = self._ledger
        after = landed(plan, before, with_last=with_last)
        hearing = self._hearings.pop(plan.primary, None)
        heard = [] if hearing is None else [hearing.said]
        seen = self._agree(trainer, partial(look_again, run, after, before, *heard))
        self._set_ledger(seen.ledger or after)
        if leaves_behind(run, behind=self._mode.async_save) and self._may_retire(trainer):
            self._remove_behind(trainer, run, [decision.name for decision in seen.dropped], before)
            seen = replace(seen, dropped=())
        for decision in seen.dropped:
            log.debug("removing %s: %s", decision.name, decision.reason)
            self._remove(trainer, run, decision.name, before)
        self._set_ledger(self._ledger)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _remove_behind(self, trainer: Any, run: Run, names: list[str], before: Ledger) -> None:
        """Have files removed behind the training. Every rank calls it."""
        if not names:
            return
        work = None
        if trainer.is_global_zero:
            earlier = self._leaving[-1] if self._leaving else None
            work = Removal(run, self._ledger, before, names, self._stamps, lambda: self._protected, earlier)
        self._leaving.append(Leaving(names, self._ledger, work))
        announce(self)
        for name in names:
            self._ledger = self._ledger.without(name)

    def _see_off(self, trainer: Any, *, wait: bool) -> None:
        """Take note of the removals that are over; with ``wait``, of all. Every rank calls it."""
        while self._leaving:
            leaving = self._leaving.popleft()
            left = self._agree(trainer, partial(leaving.look, wait=wait))
            if left is None:
                self._leaving.appendleft(leaving)
                break
            if left.stay:
                self._set_ledger(leaving.settled(self._ledger, left))
            if trainer.is_global_zero:
                tell(left)

    def _remove(self, trainer: Any, run: Run, name: str, before: Ledger) -> None:
        """Remove a file, unless somebody has pinned it since the decision."""
        leads = trainer.is_global_zero
        minded = self._agree(trainer, lambda: self._why_minded(name)) if self._mirror_words is not None else ""
        if minded:
            self._ledger = self._ledger.with_old(name) if minded == NEEDED else self._ledger.without(name)
            return
        try:
            with taking(run, before, name, self._stamps) if leads else contextlib.nullcontext("") as found:
                left = self._agree(trainer, lambda: found)
                if left == PINNED:
                    return
                if not left:
                    self._take_away(trainer, run, name)
            if left:
                self._rank_zero_warn(left)
            elif leads:
                forget(run, self._ledger, before, name)
        except OSError as error:
            self._rank_zero_warn(f"the old checkpoint {run.store.path(name)} could not be removed: {error}")
        self._ledger = self._ledger.without(name)

    def _take_away(self, trainer: Any, run: Run, name: str) -> None:
        path = run.store.path(name)
        if self._may_retire(trainer) and (not os.path.isdir(path) or is_committed(path)):
            if trainer.is_global_zero:
                self._retire(trainer, run, name)
            return
        trainer.strategy.remove_checkpoint(path)
        if "/" in name and trainer.is_global_zero:
            run.store.remove(name)  # the folders that it leaves empty

    def _may_retire(self, trainer: Any) -> bool:
        """Tell, the same on every rank, whether a file may be dropped without asking the ``CheckpointIO``."""
        io = self._own_io(trainer)
        plain = io is not None and type(io).remove_checkpoint is CheckpointIOCore.remove_checkpoint
        return plain and self._is_behind(trainer)

    def _retire(self, trainer: Any, run: Run, name: str) -> None:
        """Rank 0 only: take a file's name away; keep its blocks for the next, or give them back behind the training."""
        retired = run.store.retire(name)
        io = self._own_io(trainer)
        if self._mode.recycle_blocks and not self._spare and not shards_through_us(trainer.strategy):
            self._spare = retired
        elif retired and io is not None:
            problem = f"the old checkpoint {run.store.path(name)} could not be removed"
            io.tidy(partial(run.store.remove, retired), problem)

    def _settle(self, trainer: Any, *, wait: bool = False) -> None:
        """Take note of what is committed by now; with ``wait``, of all of our own that is on its way.

        Files of another asynchronous ``CheckpointIO`` count once they have appeared. The first error is raised
        at the end.
        """
        errors = []
        self._see_off(trainer, wait=False)
        while self._pending:
            run, head = self._as_run(), self._pending[0]
            # A newer `last` of its own is on its way or there: this one must not take its name.
            overtaken = any(LAST in later.plan.names for later in self._pending[1:])
            due = head.plan.without_last() if overtaken and not head.ours else head.plan
            if wait and head.flight is not None:  # on every rank that writes: rank 0's waits for theirs
                head.flight.wait()
            outcome = self._agree(trainer, partial(self._outcome, run, head, due))
            if outcome.primary == PENDING and outcome.error is None:
                break
            self._pending.pop(0)
            try:
                self._settle_one(trainer, run, head.plan, outcome)
            except SaveError as error:
                errors.append(error)
        self._see_off(trainer, wait=wait)
        raise_first(errors)

    def _settle_one(self, trainer: Any, run: Run, plan: Plan, outcome: Outcome) -> None:
        if outcome.primary == COMMITTED:
            with_last = plan.names.get(LAST) == plan.primary or outcome.also == COMMITTED
            self._committed(trainer, run, plan, with_last=with_last)
        if outcome.error is not None:
            self._failed(trainer, run, plan, outcome.error)

    def _wait_for_room(self, trainer: Any) -> None:
        """Wait for the saves before this one, and count that."""
        begun = time.perf_counter()
        self._settle(trainer, wait=True)
        self.stats.waited += 1
        self.stats.wait_seconds += time.perf_counter() - begun

    def _outcome(self, run: Run, head: Pending, due: Plan) -> Outcome:
        """Rank 0 only: what became of the oldest save that is on its way."""
        if not head.ours:
            return self._inspect(run, due, None, head.before)
        assert head.flight is not None  # noqa: S101 - rank 0 began it
        if not head.flight.done:
            return Outcome()
        flight = head.flight
        note_stamps(self._stamps, head.plan, flight)
        self._warn_of(self._remaining.learn(flight.seconds if flight.committed else 0.0))
        also = COMMITTED if flight.committed and head.plan.also and flight.link_error is None else PENDING
        return Outcome(COMMITTED if flight.committed else PENDING, also, flight.error or flight.link_error)

    def _skip(self, plan: Plan) -> None:
        """Leave a save out, and say so."""
        self.stats.skipped += 1
        log.info("skipped the save of %s: an earlier one is still being written", self._path(plan.primary))

    def _failed(self, trainer: Any, run: Run, plan: Plan, error: SaveError) -> None:
        """Tell of a save that failed; on a full disk nothing stays for the mirror alone."""
        if self._mirror_words is not None:
            for name in self._agree(trainer, lambda: [] if self._uploads is None else self._uploads.make_room(error)):
                self._remove(trainer, run, name, self._ledger)
        self._report(plan, error)

    def _report(self, plan: Plan, error: SaveError) -> None:
        message = self._failures.judge(error, spared=self._interrupted or plan.verdict.exception)
        if ranks_here().leads:
            log.error(message)
        self._rank_zero_warn(message)
