"""The part of ``ModelCheckpoint`` that decides: from an event of the Trainer to a plan, and to its carrying out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import ConfigurationError, MissingMetricError, SaveError
from holdfast.front.leaving import MOST
from holdfast.front.metrics_apart import MetricsApart
from holdfast.front.planning import Plan, Run, consider
from holdfast.front.save_mode import FINAL
from holdfast.front.wording import missing_message
from holdfast.front.words import Event, Moment, Spent, Triggers, ranks_here, time_asks
from holdfast.integrations.callback_saving import SavingMixin
from holdfast.integrations.freshness import MetricWatch
from holdfast.integrations.trainer_facts import (
    is_idle,
    metrics_of,
    saves_at_epoch_end,
    validation_follows,
    validation_ran,
)


class DecidingMixin(SavingMixin):
    """Decides on rank 0, carries out on all."""

    verbose: bool
    _watch: MetricWatch
    _watches: dict[str, MetricWatch]
    _told: set[str]
    _last_time_checked: float | None
    _clock: Clock

    def _time_asks(self, trainer: Any) -> bool:
        """Rank 0 only: tell whether the time makes a save due, or one waits for its metric."""
        return time_asks(self._interval(trainer), self._ledger, self._elapsed())

    @property
    def _timed(self) -> bool:
        """Whether the time makes saves due."""
        return self._train_time_interval is not None if self._when is None else self._when.timed

    def _interval(self, trainer: Any) -> float | None:
        """Rank 0 only: return the seconds after which the time makes a save due; None if it never does."""
        if self._when is not None:
            return self._when.interval(self._spent(self._when, trainer))
        return None if self._train_time_interval is None else self._train_time_interval.total_seconds()

    def _spent(self, when: Triggers, trainer: Any) -> Spent:
        """Rank 0 only: what saving has cost so far, for the trigger that goes by it."""
        return self._costs.look(when, self.stats, trainer.world_size)

    def _elapsed(self) -> float | None:
        started = self._last_time_checked
        return None if started is None else self._clock.monotonic() - started

    def _watch_anew(self) -> None:
        """Forget what was seen of the metrics that matter to the policy."""
        self._apart = MetricsApart()
        self._watch = MetricWatch()
        watched = self._settings().watched
        self._watches = {name: self._watch if name == self.monitor else MetricWatch() for name in watched}

    def _watch_metric(self, trainer: Any) -> None:
        if self.monitor is None and not self._watches:
            return
        metrics, step = trainer.callback_metrics, trainer.global_step
        if self.monitor is not None:
            self._watch.look(metrics.get(self.monitor), step)
        for name, watch in self._watches.items():
            if watch is not self._watch:
                watch.tick = self._watch.tick
                watch.look(metrics.get(name), step)

    def _is_due(self, trainer: Any, pl_module: Any, *, by_clock: bool) -> bool:
        """Tell whether a save is due after a batch, the same on every rank; and look at the metric where that matters.

        A metric that ``save_when`` watches is looked at in the pauses, not here. ``by_clock``: rank 0 of several has
        said so; one that is alone asks its own.
        """
        when, n = self._when, self._every_n_train_steps
        counted = n >= 1 if when is None else bool(when.steps or when.at)
        if not (counted or self._timed):
            return False
        self._watch.tick += 1
        step = trainer.global_step
        due = self._counts(step) or by_clock or (self._timed and trainer.world_size == 1 and self._time_asks(trainer))
        # The look one batch before it is due tells whether the metric changes with the batch that is.
        # Only under manual optimization can a batch hold several steps, so which batch that is, is not known.
        soon = (counted or when is not None) and (self._counts(step + 1) or not pl_module.automatic_optimization)
        if due or soon or trainer.is_last_batch:
            self._watch_metric(trainer)
        return due

    def _counts(self, step: int) -> bool:
        """Tell whether a save is due after this step by its number."""
        if self._when is not None:
            return self._when.counts(step)
        return self._every_n_train_steps >= 1 and step % self._every_n_train_steps == 0

    def _handle(self, trainer: Any, event: Event, *, forced: bool = False) -> Plan | None:
        """One event: decide on rank 0, carry out on all."""
        if trainer.fast_dev_run or (is_idle(trainer) and not forced):
            return None
        final = event in FINAL
        step = trainer.global_step  # compared only where ranks count by it: their epochs may be uneven
        self._at = f"step {step}" if event is Event.STEP else f"{event.value} (step {step})"
        try:
            self._settle(trainer, wait=final)
        except SaveError:  # an earlier save's failure does not cost this one
            self._carry_out_at(trainer, event, final=final)
            raise
        return self._carry_out_at(trainer, event, final=final)

    def _carry_out_at(self, trainer: Any, event: Event, *, final: bool) -> Plan:
        plan, busy = self._decide(trainer, event)
        if plan.names and busy:
            if self._mode.on_busy == "skip" and not final:
                self._skip(plan)
                return plan
            self._wait_for_room(trainer)
            plan, _ = self._decide(trainer, event)
        if not self._names_leaving().isdisjoint(plan.names.values()) or (plan.names and len(self._leaving) >= MOST):
            self._see_off(trainer, wait=True)
            plan, _ = self._decide(trainer, event)
        if plan.verdict.time_due:
            self._last_time_checked = self._clock.monotonic()
        self._ledger = replace(self._ledger, deferred=plan.after.deferred)
        if self.verbose:
            for message in plan.messages:
                self._rank_zero_info(message)
        if plan.names:
            self._compare_metrics(trainer)
            with self._failures.asked_for(by_name=event is Event.REQUEST):
                self._carry_out(trainer, self._as_run(), plan)
                if final or (self._pending and not self._mode.async_save):
                    self._settle(trainer, wait=True)
        elif plan.problem is not None:
            with self._failures.asked_for(by_name=event is Event.REQUEST):
                self._report(plan, plan.problem)
        return plan

    def _compare_metrics(self, trainer: Any) -> None:
        """At a save of several ranks: warn where they do not have the same metrics."""
        settings = self._settings()
        names = settings.watched | ({settings.monitor} if settings.monitor is not None else set())
        if names and trainer.world_size > 1:
            mine = {name: value for name, value in metrics_of(trainer).items() if name in names}
            self._apart.look(ranks_here(), mine, at=self._at)

    def _decide(self, trainer: Any, event: Event) -> tuple[Plan, bool]:
        """Return the plan, the same on every rank, and whether a save would have to wait."""
        run = self._as_run()
        try:
            return self._agree(trainer, lambda: (self._plan(trainer, run, event), self._is_busy()))
        except (MissingMetricError, ConfigurationError) as error:
            lonely = self._who_has_it(trainer) if isinstance(error, MissingMetricError) else ""
            raise self._misconfiguration(str(error) + lonely) from None

    def _who_has_it(self, trainer: Any) -> str:
        """On every rank, where rank 0 lacks the metric: name the others that have logged it."""
        if trainer.world_size == 1:
            return ""
        known = ranks_here().exchange(self.monitor in trainer.callback_metrics, at=self._at)
        having = [str(rank) for rank, has in enumerate(known) if has]
        if not having:
            return ""
        return (
            f" Only on rank {', '.join(having[:8])} it was logged, and rank 0 decides: log it on every rank, with "
            "`sync_dist=True`"
        )

    def _plan(self, trainer: Any, run: Run, event: Event) -> Plan:
        """Rank 0 only."""
        self._share_sequence(trainer)
        moment = self._moment(trainer, event)
        plan = consider(run, self._outlook(run), moment)
        if plan.verdict.missing:
            self._tell_once("missing", self._missing_text(run, moment))
        if plan.verdict.stale:
            self._tell_once(
                "stale",
                f"ModelCheckpoint(monitor={self.monitor!r}) saves at the end of epoch {moment.epoch}, but "
                f"{self.monitor!r} was measured on an earlier state: the ranking follows the old value. "
                "Validate before each save, or set save_on_train_epoch_end=False",
            )
        return plan

    def _missing_text(self, run: Run, moment: Moment) -> str:
        text = missing_message(run.settings, moment)
        if moment.event is Event.STEP:
            text += f" The save that is due at step {moment.step} waits until it is logged"
        return text

    def _tell_once(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._rank_zero_warn(message)

    def _moment(self, trainer: Any, event: Event) -> Moment:
        step = trainer.global_step
        follows = event is Event.STEP and validation_follows(trainer)
        at_epoch_end = saves_at_epoch_end(trainer, self._save_on_train_epoch_end)
        automatic = trainer.lightning_module.automatic_optimization
        return Moment(
            event=event,
            step=step,
            epoch=trainer.current_epoch,
            elapsed=self._elapsed(),
            metrics=metrics_of(trainer),
            fresh=self._watch.is_fresh(step),
            measured=frozenset(name for name, watch in self._watches.items() if watch.is_fresh(step)),
            validated=validation_ran(trainer),
            validation_follows=follows,
            epoch_closes=follows and automatic and not at_epoch_end and trainer.is_last_batch,
            saves_at_epoch_end=at_epoch_end,
            spent=self._spent(self._when or Triggers(), trainer),
        )
