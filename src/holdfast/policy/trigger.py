"""When to save: one pure function from a moment to a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.policy.ledger import Ledger
from holdfast.policy.moment import Event, Moment
from holdfast.policy.settings import Settings


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


def could_be_due(settings: Settings, event: Event, step: int) -> bool:
    """Tell cheaply whether a moment needs a decision at all: most training steps do not.

    Depends on nothing but what is equal on every rank.
    """
    if event is not Event.STEP or settings.train_time_interval is not None:
        return True
    return settings.every_n_train_steps >= 1 and step % settings.every_n_train_steps == 0


def time_asks(interval: float | None, ledger: Ledger, elapsed: float | None) -> bool:
    """Tell cheaply whether a step needs a decision because of the time: the trigger, or a save that waits."""
    due = interval is not None and elapsed is not None and elapsed >= interval
    return due or bool(ledger.deferred)


def decide(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """Decide what to save at this moment."""
    if moment.event is Event.STEP:
        return _at_step(settings, moment, ledger)
    if moment.event is Event.EXCEPTION:
        return _at_exception(settings, moment, ledger)
    if moment.event is Event.SIGNAL:
        return _at_signal(settings, moment, ledger)
    if moment.event is Event.REQUEST:
        return _needing_metric(settings, moment, ledger, "requested", fresh_enough=True)
    if moment.event is Event.TRAIN_END:
        wants = _wants_last(settings, moment, ledger)
        return Verdict(last=wants, deferred=ledger.deferred, reason="the end of training" if wants else "")
    return _at_pause(settings, moment, ledger)


def _at_step(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    n, interval = settings.every_n_train_steps, settings.train_time_interval
    time_due = interval is not None and moment.elapsed is not None and moment.elapsed >= interval
    if time_due:
        return _triggered(settings, moment, ledger, f"every {interval:g} s", time_due=True)
    if n >= 1 and moment.step % n == 0:
        return _triggered(settings, moment, ledger, _every(n, "step"), time_due=False)
    if ledger.deferred and moment.fresh and settings.monitor in moment.metrics:
        return _triggered(settings, moment, ledger, ledger.deferred, time_due=False)
    return Verdict(deferred=ledger.deferred)


def _triggered(settings: Settings, moment: Moment, ledger: Ledger, why: str, *, time_due: bool) -> Verdict:
    """A step or time trigger: ranked by the metric of this very state, or it waits for it."""
    last = _wants_last(settings, moment, ledger)
    if settings.save_top_k == 0 or moment.step == ledger.ranked_step:
        return Verdict(last=last, time_due=time_due, reason=why)
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


def _at_pause(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """The end of a validation or of a training epoch."""
    here = (moment.event is Event.EPOCH_END) == moment.saves_at_epoch_end
    n = settings.every_n_epochs
    if here and n >= 1 and (moment.epoch + 1) % n == 0:
        return _needing_metric(settings, moment, ledger, _every(n, "epoch"), fresh_enough=moment.fresh)
    ready = ledger.deferred and settings.monitor in moment.metrics and moment.fresh
    if ready and moment.step != ledger.ranked_step:
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
    if settings.save_top_k == 0 or (moment.step == ledger.ranked_step and not asked_at_the_start):
        return Verdict(last=last, deferred=ledger.deferred, reason=why)
    if settings.monitor is not None and settings.monitor not in moment.metrics:
        return Verdict(last=last, reason=why, missing=True, fatal=moment.validated)
    stale = settings.monitor is not None and not fresh_enough
    return Verdict(ranked=True, last=last, reason=why, stale=stale)


def _at_exception(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    saved = moment.step in (0, ledger.ranked_step, ledger.last_step, ledger.preempted_step)
    if not settings.save_on_exception or saved:
        return Verdict(deferred=ledger.deferred)
    last = _wants_last(settings, moment, ledger)
    return Verdict(exception=True, last=last, deferred=ledger.deferred, reason="an exception")


def _at_signal(settings: Settings, moment: Moment, ledger: Ledger) -> Verdict:
    """A resume has to find this very state: as ``last`` where there is one, else under a name of its own."""
    last = _wants_last(settings, moment, ledger)
    saved = moment.step in (0, ledger.ranked_step, ledger.last_step, ledger.preempted_step)
    why = "a signal" if last or not saved else ""
    return Verdict(last=last, preempted=not (last or saved), deferred=ledger.deferred, reason=why)


def _wants_last(settings: Settings, moment: Moment, ledger: Ledger) -> bool:
    if moment.event is Event.REQUEST and moment.step == 0:
        return settings.save_last and ledger.last is None
    return settings.save_last and moment.step > 0 and moment.step != ledger.last_step


def _every(n: int, unit: str) -> str:
    return f"every {unit}" if n == 1 else f"every {n} {unit}s"
