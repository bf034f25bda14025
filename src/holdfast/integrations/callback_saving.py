"""The part of ``ModelCheckpoint`` that carries a plan out: the same on every rank.

Rank 0 decides and touches files; the others follow. Nothing else here is collective.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import proxy

from holdfast.errors import SaveError
from holdfast.front.agreement import agree
from holdfast.front.planning import Plan, Run, to_remove
from holdfast.front.reopening import is_ours, not_ours
from holdfast.front.saving import Stamp, is_written, link, stamp
from holdfast.front.words import Ledger
from holdfast.integrations.callback_state import StateMixin
from holdfast.integrations.lightning_io import CheckpointIOCore
from holdfast.records import EXCEPTION, LAST

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


class SavingMixin(StateMixin):
    """Writes, commits, forgets, tells."""

    _new_checkpoint_io: Callable[[], CheckpointIOCore]
    _default_checkpoint_io: type

    def _init_saving(self, on_save_error: str) -> None:
        if on_save_error not in ("raise", "warn"):
            msg = f"`on_save_error` can be 'raise' or 'warn' but got {on_save_error!r}"
            raise self._misconfiguration(msg)
        self.on_save_error = on_save_error
        self._pending: list[tuple[Plan, Stamp]] = []

    def _rank_zero_warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=3)

    def _as_run(self) -> Run:
        names = {name for plan, _ in self._pending for role, name in plan.names.items() if role != LAST}
        return replace(super()._as_run(), waiting=frozenset(names))

    def _agree(self, trainer: Any, decide: Callable[[], T]) -> T:
        """Return what rank 0 decides, on every rank; an error of rank 0 is raised on every rank."""
        broadcast = trainer.strategy.broadcast if trainer.world_size > 1 else None
        return agree(decide, is_leader=trainer.is_global_zero, broadcast=broadcast)

    def _install_io(self, trainer: Any) -> None:
        """Put our ``CheckpointIO`` in place of the default one; one that the user chose stays."""
        strategy = trainer.strategy
        chosen = getattr(getattr(trainer, "_accelerator_connector", None), "checkpoint_io", None)
        if chosen is None and type(strategy.checkpoint_io) is self._default_checkpoint_io:
            strategy.checkpoint_io = self._new_checkpoint_io()

    def _own_io(self, trainer: Any) -> CheckpointIOCore | None:
        current = getattr(trainer.strategy, "_checkpoint_io", None)
        return current if isinstance(current, CheckpointIOCore) else None

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
            self._pending.append((plan, outcome.before))
            # Its place in the order of saves is taken, or the next save would count as equally old.
            self._ledger = replace(self._ledger, sequence=plan.after.sequence)
            return
        self._committed(trainer, run, plan, with_last=outcome.also == _COMMITTED or not plan.also)
        if outcome.error is not None:
            self._report(plan, outcome.error)

    def _write(self, trainer: Any, run: Run, plan: Plan) -> _Outcome:
        before = stamp(run.store, plan.primary) if trainer.is_global_zero else None
        error = self._save_file(trainer, run, plan, plan.primary)
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
        expected = io.expecting(path, plan.facts) if io is not None else contextlib.nullcontext()
        with expected as expectation:
            try:
                trainer.save_checkpoint(path, self.save_weights_only)
            except OSError as error:
                if io is not None:
                    raise
                msg = f"the checkpoint {path} was not saved: {error}. What was committed before is untouched"
                return SaveError(msg, path=path, errno=error.errno)
        return expectation.error if expectation is not None else None

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
        before = self._ledger
        after = plan.after
        if not with_last:
            after = replace(after, last=before.last, last_step=before.last_step)
        self._set_ledger(after)
        for decision in to_remove(run, after, before):
            log.debug("removing %s: %s", decision.name, decision.reason)
            self._remove(trainer, run, decision.name, before)
        self._set_ledger(self._ledger)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def _remove(self, trainer: Any, run: Run, name: str, before: Ledger) -> None:
        try:
            if not self._agree(trainer, lambda: is_ours(run, before, name)):
                self._rank_zero_warn(not_ours(run.store.path(name)))
                self._ledger = self._ledger.without(name)
                return
            trainer.strategy.remove_checkpoint(run.store.path(name))
            if "/" in name and trainer.is_global_zero:
                run.store.remove(name)  # the folders that it leaves empty
        except OSError as error:
            self._rank_zero_warn(f"the old checkpoint {run.store.path(name)} could not be removed: {error}")
        self._ledger = self._ledger.without(name)

    def _settle_pending(self, trainer: Any, run: Run) -> None:
        """Count those files of an asynchronous ``CheckpointIO`` that have appeared by now."""
        while self._pending:
            plan, before = self._pending[0]
            # A newer `last` of its own is on its way or there: this one must not take its name.
            overtaken = any(LAST in later.names for later, _ in self._pending[1:])
            due = plan.without_last() if overtaken else plan
            outcome = self._agree(trainer, partial(self._inspect, run, due, None, before))
            if outcome.primary == _PENDING:
                return
            self._pending.pop(0)
            entries = {entry.name: entry for entry in plan.after.entries}
            merged = replace(plan.after, entries=self._ledger.entries, sequence=self._ledger.sequence)
            if plan.primary in entries:
                merged = merged.with_entry(entries[plan.primary])
            with_last = plan.names.get(LAST) == plan.primary or outcome.also == _COMMITTED
            merged = replace(merged, sequence=max(plan.after.sequence, self._ledger.sequence))
            self._committed(trainer, run, replace(plan, after=merged), with_last=with_last)
            if outcome.error is not None:
                self._report(plan, outcome.error)

    def _report(self, plan: Plan, error: SaveError) -> None:
        if self.on_save_error == "raise" and EXCEPTION not in plan.names:
            raise error
        self._rank_zero_warn(str(error))
