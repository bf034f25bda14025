"""The part of ``ModelCheckpoint`` that carries a plan out: the same on every rank.

Rank 0 decides and touches files; the others follow. Nothing else here is collective.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from holdfast.errors import UNTOUCHED, ConfigurationError, SaveError
from holdfast.front.costs import Costs, stalled
from holdfast.front.failures import make_failures
from holdfast.front.forgetting import outlook
from holdfast.front.leaving import Hearing, Leaving, leaves_behind
from holdfast.front.noted import consent_to
from holdfast.front.passing import checked_on_damage
from holdfast.front.planning import Plan, Run
from holdfast.front.preflight import Preflight
from holdfast.front.reopening import Stamps
from holdfast.front.save_mode import make_save_mode
from holdfast.front.saving import (
    Behind,
    Flight,
    Saver,
    SaveStats,
    weigh,
)
from holdfast.front.sharded import ShardedSaver
from holdfast.front.under_way import announce
from holdfast.front.words import Ledger
from holdfast.integrations.callback_settling import COMMITTED, PENDING, Outcome, Pending, SettlingMixin
from holdfast.integrations.lightning_io import CheckpointIOCore
from holdfast.integrations.lightning_shards import install_shards, shards_through_us
from holdfast.records import RANKED

log = logging.getLogger("holdfast")

T = TypeVar("T")


class SavingMixin(SettlingMixin):
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
        self._pending: list[Pending] = []
        self._saver: Saver | ShardedSaver | None = None  # once something was saved
        self.stats = SaveStats()
        self._costs = Costs()
        self._stamps: Stamps = {}  # rank 0 only
        self._leaving: deque[Leaving] = deque()  # removals that are not known to be over, the same on every rank
        self._hearings: dict[str, Hearing] = {}  # of the saves on their way, by their names; rank 0 only
        self._spare = ""
        self._warmed = False
        self._preflight = Preflight()  # rank 0 only
        self._interrupted = False

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
            sharded = shards_through_us(trainer.strategy)
            if sharded and trainer.is_global_zero and self._mode.without_shards:
                self._rank_zero_warn(self._mode.without_shards)
            if io is not None and trainer.is_global_zero and self._mode.async_save and not sharded:
                io.warm(pl_module, trainer.optimizers, self._mode.images)
        if self._saver is not None:
            self._saver.poll()
        if (self._pending or self._leaving) and trainer.world_size == 1:
            self._settle(trainer)

    def _foresee(self, trainer: Any) -> None:
        """Warn if there is less room than the run will need, as far as can be told."""
        if trainer.is_global_zero:
            optimizers = () if self.save_weights_only else trainer.optimizers
            size = weigh(trainer.lightning_module, optimizers)
            self._remaining.assume(size)
            self._warn_of(self._preflight.begin(self._as_run(), self._ledger, size))

    def _install_io(self, trainer: Any) -> None:
        """Put our ``CheckpointIO`` in place of the default one; one that the user chose stays."""
        strategy = trainer.strategy
        chosen = getattr(getattr(trainer, "_accelerator_connector", None), "checkpoint_io", None)
        if chosen is None and type(strategy.checkpoint_io) is self._default_checkpoint_io:
            strategy.checkpoint_io = self._new_checkpoint_io()
        io = getattr(strategy, "_checkpoint_io", None)
        if isinstance(io, CheckpointIOCore):
            install_shards(strategy, io)

    def _close_shards(self, trainer: Any) -> None:
        """Wait and give the memory back where the strategy does not do so: it knows of no ``CheckpointIO``."""
        io = self._own_io(trainer)
        if io is not None and shards_through_us(trainer.strategy):
            io.teardown()

    def _carry_out(self, trainer: Any, run: Run, plan: Plan) -> None:
        """Write what the plan says; after the commit, and only then, forget and tell."""
        self._prospect = plan.after
        try:
            outcome = self._write(trainer, run, plan)
        finally:
            self._prospect = None
        if outcome.error is not None and outcome.primary != COMMITTED:
            self._failed(trainer, run, plan, outcome.error)
            return
        if outcome.primary == PENDING:
            announce(self)
            self._pending.append(Pending(plan, outcome.before, self._is_behind(trainer), self._begun))
            self._begun = None
            # Its place in the order of saves is taken, or the next save would count as equally old.
            self._ledger = replace(self._ledger, sequence=plan.after.sequence)
            return
        self._committed(trainer, run, plan, with_last=outcome.also == COMMITTED or not plan.also)
        if outcome.error is not None:
            self._failed(trainer, run, plan, outcome.error)

    def _write(self, trainer: Any, run: Run, plan: Plan) -> Outcome:
        # Of a file behind a URL only its being there tells: a look would be a trip for nothing.
        before = run.store.stamp(plan.primary) if trainer.is_global_zero and run.store.is_local else None
        if trainer.is_global_zero:
            under_way = sum(pending.flight is not None and not pending.flight.done for pending in self._pending)
            self._warn_of(self._preflight.before(run, plan.primary, under_way))
        begun = time.perf_counter()
        error = self._save_file(trainer, run, plan, plan.primary)
        if not self._is_behind(trainer) and trainer.is_global_zero:
            self._warn_of(self._remaining.learn(time.perf_counter() - begun))
        if self._is_behind(trainer):
            return self._agree(trainer, lambda: Outcome(error=error))
        outcome = self._agree(trainer, lambda: self._inspect(run, plan, error, before))
        if outcome.error is not None or outcome.primary == PENDING or not plan.also:
            return outcome
        if outcome.also != COMMITTED:  # no second name was possible: a sharded directory, say
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
                msg = f"the checkpoint {path} was not saved: {error}. {UNTOUCHED}"
                return SaveError(msg, path=path, errno=error.errno)
        if expectation is None:
            return None
        if behind is not None and expectation.error is not None and run.store.exists(behind.over):
            self._spare = behind.over  # nothing was written over it
        if expectation.saver is not None:
            self._begun, self._saver = expectation.flight, expectation.saver
        return expectation.error

    def _behind(self, trainer: Any, run: Run, plan: Plan) -> Behind:
        """Return how our own thread is to write the checkpoint."""
        spare, self._spare = self._spare, ""
        trained = (trainer.lightning_module, trainer.optimizers)
        consent = consent_to(run, self._ledger, plan.primary) if RANKED in plan.names else None
        # Shards are copied at once, into an image of their own kind.
        mode = replace(self._mode, zero_copy=False) if shards_through_us(trainer.strategy) else self._mode
        after = self._hearing_at(trainer, run, plan)
        return Behind(run.store, plan.primary, plan.also, spare, mode, *trained, self.stats, consent, after)

    def _hearing_at(self, trainer: Any, run: Run, plan: Plan) -> Hearing | None:
        """Rank 0 only: have the thread of the save read what people say, where that is a trip."""
        if trainer.is_global_zero and leaves_behind(run, behind=self._mode.async_save):
            self._hearings[plan.primary] = Hearing(run)
        return self._hearings.get(plan.primary)

    def _inspect_again(self, run: Run, plan: Plan, error: SaveError | None) -> Outcome:
        there = error is None and run.store.exists(plan.also)
        return Outcome(COMMITTED, COMMITTED if there else PENDING, error)
