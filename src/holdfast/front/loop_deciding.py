"""The part of ``Checkpointer`` that decides: what a step, the end of a validation or of an epoch leads to.

Rank 0 decides; the others are told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from holdfast.engine import quiesce
from holdfast.errors import SaveError
from holdfast.front.loop_resuming import LoopResuming
from holdfast.front.numbers import number
from holdfast.front.planning import Plan, consider, missing_message
from holdfast.front.preemption import answer
from holdfast.front.save_mode import FINAL
from holdfast.front.siblings import newest_sequence
from holdfast.policy.moment import Event, Moment
from holdfast.policy.trigger import step_asks
from holdfast.policy.when import Triggers, better_of
from holdfast.telling import warn

log = logging.getLogger("holdfast")


class LoopDeciding(LoopResuming):
    """Asks the policy at each event, and has carried out what it says."""

    verbose: bool
    _when: Triggers
    _step: int
    _epoch: int
    _batches: int
    _validated: bool
    _metrics: dict[str, float]
    _measured_at: dict[str, int]
    _time_checked: float
    _told: set[str]

    def _learn(self, metrics: Mapping[str, Any]) -> None:
        given = {str(name): number(name, value) for name, value in metrics.items()}
        self._metrics.update(given)
        self._measured_at.update(dict.fromkeys(given, self._step))

    def _save_at_step(self) -> None:
        when = self._when
        if not (when.looks_at_every_step or when.counts(self._step)):
            if self._ledger.deferred and self._may_be_ready():
                self._handle(Event.STEP)
        elif not when.looks_at_every_step or (self._step_asks() if self._alone else self._agree(self._step_asks)):
            self._handle(Event.STEP)

    def _may_be_ready(self) -> bool:
        """Tell whether a save that waits for its metric may get it with this step; the same on every rank."""
        settings = self._run.settings
        names = settings.ranked_by or {settings.monitor or ""}
        return not self._alone or any(self._is_new(name) for name in names)

    def _step_asks(self) -> bool:
        settings, ledger, when = self._run.settings, self._ledger, self._when
        elapsed = self._elapsed() if when.seconds is not None else None
        measured = {term.metric: self._metrics[term.metric] for term in when.improvements if self._is_new(term.metric)}
        if measured and self._waiting:  # not the whole outlook: it goes by the rules, which takes long with many files
            best = reduce(better_of, (plan.values for plan in self._waiting), ledger.saved_best)
            ledger = replace(ledger, saved_best=best)
        return step_asks(settings, ledger, self._step, elapsed, measured)

    def _preempt(self) -> None:
        """A signal asks the run to end: save what a resume goes on from, and let the signal act."""
        answer(self, self._save_for_signal)

    def _save_for_signal(self) -> None:
        self._handle(Event.SIGNAL)
        quiesce()  # what others have on its way is committed as well

    def _handle(self, event: Event, next_epoch: int | None = None) -> None:
        final = event in FINAL
        if not (final or self._hearing):  # resumed at the last step of an epoch
            self._hear_signals()
        try:
            self._settle(wait=final)
        except SaveError:  # an earlier save's failure does not cost this one
            self._carry_out_at(event, next_epoch, final=final)
            raise
        self._carry_out_at(event, next_epoch, final=final)

    def _carry_out_at(self, event: Event, next_epoch: int | None, *, final: bool) -> None:
        plan, busy = self._agree(lambda: (self._plan(event), self._is_busy()))
        if plan.names and busy:
            if self._mode.on_busy == "skip" and not final:
                self._skip(plan)
                return
            self._wait_for_room()
            plan = self._agree(lambda: self._plan(event))
        if plan.verdict.time_due:
            self._time_checked = self._run.clock.monotonic()
        self._ledger = replace(self._ledger, deferred=plan.after.deferred)
        for message in plan.messages if self.verbose else ():
            log.info(message)
        if plan.names:
            loop = self._loop(plan, self._epoch if next_epoch is None else next_epoch)
            with self._failures.asked_for(by_name=event is Event.REQUEST):
                self._carry_out(plan, loop, final=final)

    def _is_busy(self) -> bool:
        """Rank 0 only: whether a save would have to wait; to be skipped, for one of our own."""
        ours = self._mode.on_busy == "wait" or any(not flight.done for flight in self._flights)
        saver = self._shards if self._cut else self._saver
        return ours and saver is not None and saver.busy

    def _plan(self, event: Event) -> Plan:
        settings = self._run.settings
        self._ledger = replace(self._ledger, sequence=newest_sequence(self))
        moment = self._moment(event)
        plan = consider(self._planned_run(), self._outlook(), moment)
        if plan.verdict.missing and "missing" not in self._told:
            self._told.add("missing")
            warn(missing_message(settings, moment))
        return plan

    def _loop(self, plan: Plan, next_epoch: int) -> dict[str, int | str]:
        """Return where the loop stands, for the state."""
        batches = self._batches if next_epoch == self._epoch else 0
        loop: dict[str, int | str] = {"epoch": self._epoch, "global_step": self._step, "next_epoch": next_epoch}
        return loop | {"batches": batches, "deferred": plan.after.deferred}

    def _moment(self, event: Event) -> Moment:
        return Moment(
            event=event,
            step=self._step,
            epoch=self._epoch,
            elapsed=self._elapsed(),
            metrics=dict(self._metrics),
            fresh=self._is_new(self._run.settings.monitor or ""),
            measured=self._measured(),
            validated=self._validated,
            saves_at_epoch_end=self._run.settings.save_on_train_epoch_end is not False,
        )

    def _measured(self) -> frozenset[str]:
        """Return the metrics that matter to the policy and were measured on this very state."""
        return frozenset(name for name in self._run.settings.watched if self._is_new(name))

    def _is_new(self, name: str) -> bool:
        return self._measured_at.get(name) == self._step

    def _elapsed(self) -> float:
        return self._run.clock.monotonic() - self._time_checked
