"""The part of ``Checkpointer`` that decides: what a step, the end of a validation or of an epoch leads to.

Rank 0 decides; the others are told.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from holdfast.engine import quiesce
from holdfast.errors import RankError, SaveError
from holdfast.front.leaving import MOST
from holdfast.front.loop_resuming import LoopResuming
from holdfast.front.metrics_apart import MetricsApart
from holdfast.front.numbers import number
from holdfast.front.planning import Plan, consider
from holdfast.front.preemption import agree_on, answer, answer_together
from holdfast.front.pulse import QUIET, Heard, News, Pulse
from holdfast.front.save_mode import FINAL
from holdfast.front.siblings import newest_sequence
from holdfast.front.wording import missing_message
from holdfast.policy.moment import Event, Moment
from holdfast.policy.seconds import Spent
from holdfast.policy.trigger import step_asks
from holdfast.policy.when import Triggers, better_of
from holdfast.telling import warn

log = logging.getLogger("holdfast")

_OF_AN_INTERVAL = 0.1  # by so much of it a save of several ranks may be late
_UNDECIDED = 100  # beats after which rank 0 knows whether its metrics are given at steps


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
    _pulse: Pulse
    _apart: MetricsApart
    _given_at_steps: set[str]  # the metrics, of several ranks
    _ahead: bool  # rank 0 of several has said that the deadline is near

    def _learn(self, metrics: Mapping[str, Any]) -> None:
        given = {str(name): number(name, value) for name, value in metrics.items()}
        self._metrics.update(given)
        self._measured_at.update(dict.fromkeys(given, self._step))

    def _save_at_step(self) -> None:
        when = self._when
        if not self._alone:
            self._step_together()
        elif when.counts(self._step) or ((when.looks_at_every_step or self._ledger.deferred) and self._step_asks()):
            self._handle(Event.STEP)

    def _step_together(self) -> None:
        """Of several ranks: what all know of by the number of the step, and what they tell each other now and then."""
        heard = self._beat(f"step {self._step}") if self._talks and self._pulse.due() else QUIET
        if self._when.counts(self._step) or News.DUE in heard.news:
            self._handle(Event.STEP)
        elif News.LANDED in heard.news:
            self._settle(wait=False)

    def _beat(self, at: str) -> Heard:
        """Several ranks tell each other what there is."""
        heard = self._pulse.beat(self._news, self._limit, at=at)
        agree_on(heard.signals)
        self._ahead = self._ahead or News.DEADLINE in heard.news
        return heard

    @property
    def _talks(self) -> bool:
        """Whether the ranks have to tell each other anything between saves; the same on every rank."""
        signals = self._signals and self._hearing
        return bool(signals or self._when.looks_at_every_step or self._remaining.at is not None or self._waits)

    @property
    def _waits(self) -> bool:
        """Whether a save is on its way, or waits for a metric; the same on every rank."""
        return bool(self._waiting or self._ledger.deferred)

    def _news(self) -> News:
        """Rank 0 only: what there is to tell."""
        news = News.NONE
        if self._step_asks():
            news |= News.DUE
        if self._waiting and self._flights[0].done:
            news |= News.LANDED
        if self._remaining.is_due(self._pulse.between):
            news |= News.DEADLINE
        return news

    def _limit(self) -> float:
        """Rank 0 only: how many seconds of training may go by until the ranks talk again."""
        seconds = self._when.interval(self._spent())
        clock = _OF_AN_INTERVAL * seconds if seconds is not None else math.inf
        if self._when.improvements or self._ledger.deferred:  # a metric counts at the very step that measures it
            names = {self._run.settings.monitor, *self._run.settings.watched}
            if self._pulse.beats < _UNDECIDED or not names.isdisjoint(self._given_at_steps):
                return 0.0
        return min(clock, self._remaining.limit())

    def _may_be_ready(self) -> bool:
        """Tell whether a save that waits for its metric gets it with this step."""
        settings = self._run.settings
        names = settings.ranked_by or {settings.monitor or ""}
        return any(self._is_new(name) for name in names)

    def _step_asks(self) -> bool:
        """Tell whether the time or a metric makes a save due, or one that waits for its metric has it now."""
        settings, ledger, when = self._run.settings, self._ledger, self._when
        if ledger.deferred:
            if self._may_be_ready():
                return True
            ledger = replace(ledger, deferred="")
        elapsed = self._elapsed() if when.timed else None
        measured = {term.metric: self._metrics[term.metric] for term in when.improvements if self._is_new(term.metric)}
        if measured and self._waiting:  # not the whole outlook: it goes by the rules, which takes long with many files
            best = reduce(better_of, (plan.values for plan in self._waiting), ledger.saved_best)
            ledger = replace(ledger, saved_best=best)
        return step_asks(settings, ledger, self._step, elapsed, measured, spent=self._spent())

    def _at_pause(self) -> None:
        """At the end of a validation or an epoch: see what asks the run to end."""
        if self._talks and not self._alone:
            self._beat(self._doing)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Save what a resume goes on from, if the deadline is near or a signal asks the run to end; then it acts."""
        if self._remaining.is_due() if self._alone else self._ahead:
            if self._leads:
                log.warning("the deadline is in %.0f s: saving before it", self._remaining.left)
            self._remaining.done()
            self._ahead = False
            self._handle(Event.DEADLINE)
        if self._alone:
            answer(self, self._save_for_signal)
        else:
            answer_together(self, self._save_for_signal, self._meet)

    def _end_alike(self) -> None:
        """At the close: a signal that came to one of several ranks acts on all."""
        if self._signals and self._hearing and not self._alone:
            agree_on(self._pulse.beat(at="the close").signals)

    def _meet(self) -> None:
        """Come back once every rank is here."""
        try:
            self._ranks.highest([0], at="a signal")
        except RankError as error:  # it has ended before this one knew that all are here
            log.info("a rank has ended already: %s", error)

    def _save_for_signal(self) -> None:
        self._handle(Event.SIGNAL)
        quiesce()  # what others have on its way is committed as well

    def _handle(self, event: Event, next_epoch: int | None = None) -> None:
        final = event in FINAL
        step = self._step  # compared only where ranks count by it: their epochs may be uneven
        self._doing = f"step {step}" if event is Event.STEP else f"{event.value} (step {step})"
        self._pulse.soon()
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
        if not self._names_leaving().isdisjoint(plan.names.values()) or (plan.names and len(self._leaving) >= MOST):
            self._see_off(wait=True)
            plan = self._agree(lambda: self._plan(event))
        if plan.verdict.time_due:
            self._time_checked = self._run.clock.monotonic()
        self._ledger = replace(self._ledger, deferred=plan.after.deferred)
        for message in plan.messages if self.verbose else ():
            log.info(message)
        if plan.names:
            self._compare_metrics()
        with self._failures.asked_for(by_name=event is Event.REQUEST):
            if plan.names:
                loop = self._loop(plan, self._epoch if next_epoch is None else next_epoch)
                self._carry_out(plan, loop, final=final)
            elif plan.problem is not None:
                self._report(plan, plan.problem)

    def _compare_metrics(self) -> None:
        """At a save of several ranks: warn where they have not measured the same."""
        settings = self._run.settings
        names = settings.watched | ({settings.monitor} if settings.monitor is not None else set())
        if names and not self._alone:
            mine = {name: self._metrics[name] for name in names if self._is_new(name)}
            self._apart.look(self._ranks, mine, at=self._doing)

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
        return plan if self._alone else plan.for_all()

    def _loop(self, plan: Plan, next_epoch: int) -> dict[str, int | str]:
        """Return where the loop stands, for the state."""
        batches = self._batches if next_epoch == self._epoch else 0
        loop: dict[str, int | str] = {"epoch": self._epoch, "global_step": self._step, "next_epoch": next_epoch}
        return loop | {"batches": batches, "deferred": plan.after.deferred}

    def _spent(self) -> Spent:
        """Rank 0 only: what saving has cost so far, for the trigger that goes by it."""
        return self._costs.look(self._when, self.stats, self._ranks.size)

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
            spent=self._spent(),
        )

    def _measured(self) -> frozenset[str]:
        """Return the metrics that matter to the policy and were measured on this very state."""
        return frozenset(name for name in self._run.settings.watched if self._is_new(name))

    def _is_new(self, name: str) -> bool:
        return self._measured_at.get(name) == self._step

    def _elapsed(self) -> float:
        return self._run.clock.monotonic() - self._time_checked
