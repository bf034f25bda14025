"""The part of ``ModelCheckpoint`` that carries a plan out: the same on every rank.

Rank 0 decides and touches files; the others follow. Nothing else here is collective.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import proxy

from holdfast.errors import ConfigurationError, SaveError
from holdfast.front.failures import FailureWords, make_failures
from holdfast.front.forgetting import PINNED, forget, look_again, outlook, taking
from holdfast.front.noted import consent_to
from holdfast.front.pacing import Pace, stalled
from holdfast.front.passing import checked_on_damage
from holdfast.front.planning import Plan, Run, landed
from holdfast.front.preflight import Preflight
from holdfast.front.reopening import Stamps, note_stamps
from holdfast.front.save_mode import make_save_mode
from holdfast.front.saving import (
    Behind,
    Flight,
    Saver,
    SaveStats,
    Stamp,
    is_written,
    link,
    raise_first,
    weigh,
)
from holdfast.front.under_way import announce, names_of_others
from holdfast.front.words import Ledger, ranks_here
from holdfast.integrations.callback_state import StateMixin
from holdfast.integrations.lightning_io import CheckpointIOCore
from holdfast.integrations.trainer_facts import writes_itself
from holdfast.records import EXCEPTION, LAST, RANKED
from holdfast.telling import warn

log = logging.getLogger("holdfast")

T = TypeVar("T")

_COMMITTED, _PENDING = "committed", "pending"


@dataclass(frozen=True)
class _Outcome:
    """What became of a write, as rank 0 saw it."""

    primary: str = _PENDING
    also: str = _PENDING
    error: SaveError | None = None
    before: Stamp = None


@dataclass(frozen=True)
class _Pending:
    """A save that is not committed yet: ours, which rank 0 follows, or another plugin's, whose file will appear."""

    plan: Plan
    before: Stamp
    ours: bool
    flight: Flight | None


class SavingMixin(StateMixin, FailureWords):
    """Writes, commits, forgets, tells."""

    _begun: Flight | None = None

    _new_checkpoint_io: Callable[[], CheckpointIOCore]
    _default_checkpoint_io: type

    def _init_saving(self, failing: Mapping[str, Any], on_damage: str, mode: Mapping[str, Any]) -> None:
        try:
            self._failures = make_failures(**failing)
            self.on_damage = checked_on_damage(on_damage)
            self._mode = make_save_mode(**mode)
        except ConfigurationError as error:
            raise self._misconfiguration(str(error)) from None
        self._pending: list[_Pending] = []
        self._saver: Saver | None = None  # rank 0 only, once something was saved
        self.stats = SaveStats()
        self._pace = Pace()
        self._stamps: Stamps = {}  # rank 0 only
        self._spare = ""
        self._warmed = False
        self._preflight = Preflight()  # rank 0 only
        self._interrupted = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, "_saver": None, "_pending": [], "_stamps": {}, "_owned": None}

    def _rank_zero_warn(self, message: str) -> None:
        warn(message)

    def _rank_zero_info(self, message: str) -> None:
        log.info(message)

    def _as_run(self) -> Run:
        given = [item for pending in self._pending for item in pending.plan.names.items()]
        run, waiting = super()._as_run(), frozenset(name for role, name in given if role != LAST)
        return replace(run, waiting=waiting, given=names_of_others(self, run.store))

    def paths_under_way(self) -> Iterable[str]:
        """Return the paths of our own saves that are not known to be committed."""
        return [self._path(name) for pending in self._pending for name in pending.plan.names.values()]

    def _outlook(self, run: Run) -> Ledger:
        """Return the ledger as it will be once our own saves that are on their way are committed."""
        plans = [pending.plan for pending in self._pending if pending.ours]
        return outlook(run, self._ledger, plans) if plans else self._ledger

    def _expected_ledger(self) -> Ledger:
        return self._outlook(self._as_run()) if self._pending else self._ledger

    def _is_busy(self) -> bool:
        """Rank 0 only: whether a save of ours would have to wait."""
        flights = [pending.flight for pending in self._pending if pending.flight is not None]
        ours = self._mode.on_busy == "wait" or any(not flight.done for flight in flights)
        return self._mode.async_save and ours and self._saver is not None and self._saver.busy

    def _look_after(self, trainer: Any, pl_module: Any) -> None:
        """Between saves: let what is on its way go on, and take note of what has been committed."""
        if not self._warmed:
            self._warmed = True
            self._foresee(trainer)
            io = self._own_io(trainer)
            if io is not None and trainer.is_global_zero and self._mode.async_save:
                io.warm(pl_module, trainer.optimizers, self._mode.images)
        if self._saver is not None:
            self._saver.poll()
        if self._pending and trainer.world_size == 1:
            self._settle(trainer)

    def _foresee(self, trainer: Any) -> None:
        """Warn if there is less room than the run will need, as far as can be told."""
        if trainer.is_global_zero:
            optimizers = () if self.save_weights_only else trainer.optimizers
            size = weigh(trainer.lightning_module, optimizers)
            self._warn_of(self._preflight.begin(self._as_run(), self._ledger, size))

    def _warn_of(self, message: str) -> None:
        if message:
            log.warning(message)
            self._rank_zero_warn(message)

    def _agree(self, trainer: Any, decide: Callable[[], T]) -> T:
        """Return what rank 0 decides, on every rank; an error of rank 0 is raised on every rank."""
        return decide() if trainer.world_size == 1 else ranks_here().agree(decide)

    def _install_io(self, trainer: Any) -> None:
        """Put our ``CheckpointIO`` in place of the default one; one that the user chose stays."""
        strategy = trainer.strategy
        chosen = getattr(getattr(trainer, "_accelerator_connector", None), "checkpoint_io", None)
        if chosen is None and type(strategy.checkpoint_io) is self._default_checkpoint_io:
            strategy.checkpoint_io = self._new_checkpoint_io()

    def _own_io(self, trainer: Any) -> CheckpointIOCore | None:
        current = getattr(trainer.strategy, "_checkpoint_io", None)
        ours = isinstance(current, CheckpointIOCore) and not writes_itself(trainer.strategy)
        return current if ours else None

    def _carry_out(self, trainer: Any, run: Run, plan: Plan) -> None:
        """Write what the plan says; after the commit, and only then, forget and tell."""
        self._prospect = plan.after
        try:
            outcome = self._write(trainer, run, plan)
        finally:
            self._prospect = None
        if outcome.error is not None and outcome.primary != _COMMITTED:
            self._report(plan, outcome.error)
            return
        if outcome.primary == _PENDING:
            announce(self)
            self._pending.append(_Pending(plan, outcome.before, self._is_behind(trainer), self._begun))
            self._begun = None
            # Its place in the order of saves is taken, or the next save would count as equally old.
            self._ledger = replace(self._ledger, sequence=plan.after.sequence)
            return
        self._committed(trainer, run, plan, with_last=outcome.also == _COMMITTED or not plan.also)
        if outcome.error is not None:
            self._report(plan, outcome.error)

    def _is_behind(self, trainer: Any) -> bool:
        """Tell, the same on every rank, whether our own thread writes, behind the training's back."""
        return self._mode.async_save and self._own_io(trainer) is not None

    def _write(self, trainer: Any, run: Run, plan: Plan) -> _Outcome:
        before = run.store.stamp(plan.primary) if trainer.is_global_zero else None
        if trainer.is_global_zero:
            under_way = sum(pending.flight is not None and not pending.flight.done for pending in self._pending)
            self._warn_of(self._preflight.before(run, plan.primary, under_way))
        error = self._save_file(trainer, run, plan, plan.primary)
        if self._is_behind(trainer):
            return self._agree(trainer, lambda: _Outcome(error=error))
        outcome = self._agree(trainer, lambda: self._inspect(run, plan, error, before))
        if outcome.error is not None or outcome.primary == _PENDING or not plan.also:
            return outcome
        if outcome.also != _COMMITTED:  # no second name was possible: a sharded directory, say
            error = self._save_file(trainer, run, plan, plan.also)
            outcome = self._agree(trainer, lambda: self._inspect_again(run, plan, error))
        return outcome

    def _save_file(self, trainer: Any, run: Run, plan: Plan, name: str) -> SaveError | None:
        """Have the Trainer write one file, on every rank; return rank 0's error."""
        path = run.store.path(name)
        io = self._own_io(trainer)
        behind = self._behind(trainer, run, plan) if self._is_behind(trainer) else None
        expected = io.expecting(path, plan.facts, behind) if io is not None else contextlib.nullcontext()
        with expected as expectation, contextlib.nullcontext() if behind is not None else stalled(self.stats):
            try:
                trainer.save_checkpoint(path, self.save_weights_only)
            except OSError as error:
                if io is not None:
                    raise
                msg = f"the checkpoint {path} was not saved: {error}. What was committed before is untouched"
                return SaveError(msg, path=path, errno=error.errno)
        if expectation is None:
            return None
        if behind is not None and expectation.error is not None and run.store.exists(behind.over):
            self._spare = behind.over  # nothing was written over it
        if expectation.saver is not None:
            self._begun, self._saver = expectation.flight, expectation.saver
        return expectation.error

    def _behind(self, trainer: Any, run: Run, plan: Plan) -> Behind:
        """Return how our own thread is to write the file."""
        spare, self._spare = self._spare, ""
        trained = (trainer.lightning_module, trainer.optimizers)
        consent = consent_to(run, self._ledger, plan.primary) if RANKED in plan.names else None
        return Behind(run.store, plan.primary, plan.also, spare, self._mode, *trained, self.stats, consent)

    def _inspect(self, run: Run, plan: Plan, error: SaveError | None, before: Stamp) -> _Outcome:
        """Rank 0 only: see what is there now, and give it its second name."""
        if error is not None:
            return _Outcome(error=error)
        if not is_written(run.store, plan.primary, before):
            return _Outcome(before=before)
        directory = run.store.is_local and os.path.isdir(run.store.path(plan.primary))
        if not plan.also or directory:
            return _Outcome(_COMMITTED)
        try:
            how = link(run.store, plan.primary, plan.also)
        except SaveError as problem:
            return _Outcome(_COMMITTED, error=problem)
        log.debug("%s is a %s of %s", plan.also, how, plan.primary)
        return _Outcome(_COMMITTED, _COMMITTED)

    def _inspect_again(self, run: Run, plan: Plan, error: SaveError | None) -> _Outcome:
        there = error is None and run.store.exists(plan.also)
        return _Outcome(_COMMITTED, _COMMITTED if there else _PENDING, error)

    def _committed(self, trainer: Any, run: Run, plan: Plan, *, with_last: bool) -> None:
        self.stats.committed += 1
        self._failures.committed()
        if trainer.is_global_zero:
            self._preflight.learn(run, plan.primary)
        before = self._ledger
        after = landed(plan, before, with_last=with_last)
        seen = self._agree(trainer, partial(look_again, run, after, before))
        self._set_ledger(seen.ledger)
        for decision in seen.dropped:
            log.debug("removing %s: %s", decision.name, decision.reason)
            self._remove(trainer, run, decision.name, before)
        self._set_ledger(self._ledger)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _remove(self, trainer: Any, run: Run, name: str, before: Ledger) -> None:
        """Remove a file, unless somebody has pinned it since the decision."""
        leads = trainer.is_global_zero
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
        if self._may_retire(trainer) and not os.path.isdir(run.store.path(name)):
            if trainer.is_global_zero:
                self._retire(run, name)
            return
        trainer.strategy.remove_checkpoint(run.store.path(name))
        if "/" in name and trainer.is_global_zero:
            run.store.remove(name)  # the folders that it leaves empty

    def _may_retire(self, trainer: Any) -> bool:
        """Tell, the same on every rank, whether a file may be dropped without asking the ``CheckpointIO``."""
        io = self._own_io(trainer)
        plain = io is not None and type(io).remove_checkpoint is CheckpointIOCore.remove_checkpoint
        return plain and self._is_behind(trainer)

    def _retire(self, run: Run, name: str) -> None:
        """Rank 0 only: take a file's name away; keep its blocks for the next, or give them back behind the training."""
        retired = run.store.retire(name)
        if self._mode.recycle_blocks and not self._spare:
            self._spare = retired
        elif retired and self._saver is not None:
            problem = f"the old checkpoint {run.store.path(name)} could not be removed"
            self._saver.tidy(partial(run.store.remove, retired), problem)

    def _settle(self, trainer: Any, *, wait: bool = False) -> None:
        """Take note of what is committed by now; with ``wait``, of all of our own that is on its way.

        Files of another asynchronous ``CheckpointIO`` count once they have appeared. The first error is raised
        at the end.
        """
        errors = []
        while self._pending:
            run, head = self._as_run(), self._pending[0]
            # A newer `last` of its own is on its way or there: this one must not take its name.
            overtaken = any(LAST in later.plan.names for later in self._pending[1:])
            due = head.plan.without_last() if overtaken and not head.ours else head.plan
            outcome = self._agree(trainer, partial(self._outcome, run, head, due, wait=wait))
            if outcome.primary == _PENDING and outcome.error is None:
                break
            self._pending.pop(0)
            try:
                self._settle_one(trainer, run, head.plan, outcome)
            except SaveError as error:
                errors.append(error)
        raise_first(errors)

    def _settle_one(self, trainer: Any, run: Run, plan: Plan, outcome: _Outcome) -> None:
        if outcome.primary == _COMMITTED:
            with_last = plan.names.get(LAST) == plan.primary or outcome.also == _COMMITTED
            self._committed(trainer, run, plan, with_last=with_last)
        if outcome.error is not None:
            self._report(plan, outcome.error)

    def _wait_for_room(self, trainer: Any) -> None:
        """Wait for the saves before this one, and count that."""
        begun = time.perf_counter()
        self._settle(trainer, wait=True)
        self.stats.waited += 1
        self.stats.wait_seconds += time.perf_counter() - begun

    def _outcome(self, run: Run, head: _Pending, due: Plan, *, wait: bool) -> _Outcome:
        """Rank 0 only: what became of the oldest save that is on its way."""
        if not head.ours:
            return self._inspect(run, due, None, head.before)
        assert head.flight is not None  # noqa: S101 - rank 0 began it
        if wait:
            head.flight.wait()
        if not head.flight.done:
            return _Outcome()
        flight = head.flight
        note_stamps(self._stamps, head.plan, flight)
        also = _COMMITTED if flight.committed and head.plan.also and flight.link_error is None else _PENDING
        return _Outcome(_COMMITTED if flight.committed else _PENDING, also, flight.error or flight.link_error)

    def _skip(self, plan: Plan) -> None:
        """Leave a save out, and say so."""
        self.stats.skipped += 1
        log.info("skipped the save of %s: an earlier one is still being written", self._path(plan.primary))

    def _report(self, plan: Plan, error: SaveError) -> None:
        message = self._failures.judge(error, spared=self._interrupted or EXCEPTION in plan.names)
        if ranks_here().leads:
            log.error(message)
        self._rank_zero_warn(message)
