"""When to save: one pure function from a moment to a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.policy.ledger import Ledger
from holdfast.policy.moment import Event, Moment
from holdfast.policy.seconds import NOTHING_SPENT, Spent
from holdfast.policy.settings import Settings

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What to do at a moment, and why.

    Attributes:
        ranked: write a checkpoint, if its score admits it.
        last: bring ``last`` up to this state.
        exception: write the file of an interrupted run.
        preempted: write the file of a run that a signal asks to end.
        deferred: why a ranked save now waits for the monitored metric, or "".
        time_due: the time trigger was due: its clock starts again.
        reason: why, for people and for the manifest.
        missing: the monitored metric was not there though it was needed.
        fatal: whether that is an error rather than a warning.
        stale: an epoch's save is ranked by a metric that an earlier state produced.

    """

    ranked: bool = False
    last: bool = False
    exception: bool = False
    preempted: bool = False
    deferred: str = ""
    time_due: bool = False
    reason: str = ""
    missing: bool = False
    fatal: bool = False
    stale: bool = False

    @property
    def saves(self) -> bool:
        """Whether anything is to be written."""
        return self.ranked or self.last or self.exception or self.preempted


def time_asks(interval: float | None, ledger: Ledger, elapsed: float | None) -> bool:
    """Tell cheaply whether a step needs a decision because of the time: the trigger, or a save that waits."""
    due = interval is not None and elapsed is not None and elapsed >= interval
    return due or bool(ledger.deferred)


def step_asks(  # noqa: PLR0913 - each is one thing that can make a save due
    settings: Settings,
    ledger: Ledger,
    step: int,
    elapsed: float | None,
    measured: Metrics,
    *,
    spent: Spent = NOTHING_SPENT,
) -> bool:
    """Tell cheaply whether a step needs a decision, of those that have to be looked at one by one.

    Args:
        settings: what the run was told.
        ledger: what is committed or on its way.
        step: finished optimizer steps.
        elapsed: seconds since the time trigger was last due.
        measured: the metrics that were measured on this very state.
        spent: what saving has cost so far.

    """
    when = settings.when
    if when.counts(step) or time_asks(when.interval(spent) if when.timed else None, ledger, elapsed):
        return True
    return bool(measured) and bool(when.improved(measured, ledger.saved_best))


def decide(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """Decide what to save at this moment."""
    if moment.event is Event.STEP:
        return _at_step(settings, moment, ledger)
    if moment.event is Event.EXCEPTION:
        return _at_exception(settings, moment, ledger)
    if moment.event in {Event.SIGNAL, Event.DEADLINE}:
        return _before_the_end(settings, moment, ledger)
    if moment.event is Event.REQUEST:
        return _needing_metric(settings, moment, ledger, "requested", fresh_enough=True)
    if moment.event is Event.TRAIN_END:
        wants = _wants_last(settings, moment, ledger)
        return Verdict(last=wants, deferred=ledger.deferred, reason="the end of training" if wants else "")
    return _at_pause(settings, moment, ledger)


def _at_step(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    when = settings.when
    reasons = when.due_by_time(moment.elapsed, moment.spent)
    time_due = bool(reasons)
    reasons += when.due_at_step(moment.step) + _improved(settings, moment, ledger)
    if reasons:
        return _triggered(settings, moment, ledger, ", ".join(reasons), time_due=time_due)
    if ledger.deferred and _is_ready(settings, moment):
        return _triggered(settings, moment, ledger, ledger.deferred, time_due=False)
    return Verdict(deferred=ledger.deferred)


def _triggered(settings: Settings, moment: Moment, ledger: Ledger, why: str, *, time_due: bool) -> Verdict:
    """A step or time trigger: ranked by the metric of this very state, or it waits for it."""
    last = _wants_last(settings, moment, ledger)
    if settings.save_top_k == 0 or _is_there(settings, moment, ledger):
        return Verdict(last=last, time_due=time_due, reason=why)
    if settings.keep is not None:
        return _kept(settings, moment, why, last=last, time_due=time_due)
    if settings.monitor is None:
        return Verdict(ranked=True, last=last, time_due=time_due, reason=why)
    # At the close of an epoch the name may hold what the validation measures: Lightning waits for it too.
    if settings.monitor in moment.metrics and moment.fresh and not moment.epoch_closes:
        return Verdict(ranked=True, last=last, time_due=time_due, reason=why)
    # If a validation starts right now, its end writes both names with one set of bytes.
    return Verdict(
        last=last and not moment.validation_follows,
        deferred=why,
        time_due=time_due,
        reason=why,
        missing=settings.monitor not in moment.metrics,
    )


def _kept(settings: Settings, moment: Moment, why: str, *, last: bool, time_due: bool) -> Verdict:
    """A step or time trigger under ``keep``: it saves now, and what is measured next is saved for the ranking."""
    unranked = why if settings.ranked_by and not _is_ready(settings, moment) else ""
    if unranked and moment.validation_follows:  # it measures this very state
        return Verdict(deferred=why, time_due=time_due, reason=why)
    return Verdict(ranked=True, last=last, time_due=time_due, reason=why, deferred=unranked)


def _at_pause(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """The end of a validation or of a training epoch."""
    here = (moment.event is Event.EPOCH_END) == moment.saves_at_epoch_end
    reasons = settings.when.due_at_epoch(moment.epoch) if here else []
    reasons += _improved(settings, moment, ledger)
    if reasons:
        return _needing_metric(settings, moment, ledger, ", ".join(reasons), fresh_enough=moment.fresh)
    ready = ledger.deferred and _is_ready(settings, moment)
    if ready and not _is_there(settings, moment, ledger):
        why = f"{ledger.deferred}, ranked by the {moment.event.value}"
        return Verdict(ranked=True, last=_wants_last(settings, moment, ledger), reason=why)
    waits = bool(ledger.deferred) and moment.event is Event.VALIDATION_END
    epoch_last = (moment.event is Event.EPOCH_END or here or waits) and _wants_last(settings, moment, ledger)
    why = f"the {moment.event.value}" if epoch_last else ""
    return Verdict(last=epoch_last, deferred=ledger.deferred, reason=why)


def _needing_metric(settings: Settings, moment: Moment, ledger: Ledger, why: str, *, fresh_enough: bool) -> Verdict:
    """An epoch trigger or a request: it saves now, and a metric that is missing is said."""
    last = _wants_last(settings, moment, ledger)
    asked_at_the_start = moment.event is Event.REQUEST and moment.step == 0 and not ledger.entries
    if settings.save_top_k == 0 or (_is_there(settings, moment, ledger) and not asked_at_the_start):
        return Verdict(last=last, deferred=ledger.deferred, reason=why)
    missing = settings.monitor is not None and settings.monitor not in moment.metrics
    if settings.keep is not None:  # it is saved in any case, and ranked by what was measured on it
        return Verdict(ranked=True, last=last, reason=why, missing=missing)
    if missing:
        return Verdict(last=last, reason=why, missing=True, fatal=moment.validated)
    stale = settings.monitor is not None and not fresh_enough
    return Verdict(ranked=True, last=last, reason=why, stale=stale)


def _improved(settings: Settings, moment: Moment, ledger: Ledger) -> list[str]:
    """Return why the metrics of this very state make a save due."""
    measured = measured_of(moment)
    return [
        f"{term.metric} improved to {measured[term.metric]:g}"
        for term in settings.when.improved(measured, ledger.saved_best)
    ]


def measured_of(moment: Moment) -> dict[str, float]:
    """Return those metrics that were measured on this very state, as far as that is known."""
    return {name: moment.metrics[name] for name in moment.measured if name in moment.metrics}


def _is_ready(settings: Settings, moment: Moment) -> bool:
    """Tell whether a save that waits for its metric would have it now."""
    if settings.keep is not None:
        return any(name in moment.metrics for name in settings.ranked_by & moment.measured)
    return moment.fresh and settings.monitor in moment.metrics


def _is_there(settings: Settings, moment: Moment, ledger: Ledger) -> bool:
    """Tell whether this very state is committed already, with all that is known of it."""
    if moment.step != ledger.ranked_step:
        return False
    news = {name for name in settings.watched & moment.measured if name in moment.metrics}
    newest = max(ledger.entries, key=lambda entry: entry.sequence, default=None)
    # What was measured since on the same state is worth another save of it: it takes the place of the first.
    return newest is None or newest.step != moment.step or news <= newest.metrics.keys()


def _at_exception(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    saved = moment.step in (0, ledger.ranked_step, ledger.last_step, ledger.preempted_step)
    if not settings.save_on_exception or saved:
        return Verdict(deferred=ledger.deferred)
    last = _wants_last(settings, moment, ledger)
    return Verdict(exception=True, last=last, deferred=ledger.deferred, reason="an exception")


def _before_the_end(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """A resume has to find this very state: as ``last`` where there is one, else under a name of its own."""
    last = _wants_last(settings, moment, ledger)
    saved = moment.step in (0, ledger.ranked_step, ledger.last_step, ledger.preempted_step)
    cause = "a signal" if moment.event is Event.SIGNAL else "the deadline"
    why = cause if last or not saved else ""
    return Verdict(last=last, preempted=not (last or saved), deferred=ledger.deferred, reason=why)


def _wants_last(settings: Settings, moment: Moment, ledger: Ledger) -> bool:
    if moment.event is Event.REQUEST and moment.step == 0:
        return settings.save_last and ledger.last is None
    return settings.save_last and moment.step > 0 and moment.step != ledger.last_step
