"""When to save, against a model that knows the whole schedule beforehand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.moment import Event, Moment
from holdfast.policy.settings import make_settings
from holdfast.policy.trigger import decide, time_asks
from tests.policy.asking import could_be_due
from tests.support.properties import examples


@dataclass(frozen=True)
class Schedule:
    """A training: batches per epoch, and after which of them a validation runs."""

    epochs: int
    batches: int
    validations: frozenset

    def events(self):
        """Yield (event, step, epoch, whether a validation follows) in the order of the training."""
        step = 0
        for epoch in range(self.epochs):
            for batch in range(1, self.batches + 1):
                step += 1
                validates = batch in self.validations
                yield Event.STEP, step, epoch, validates
                if validates:
                    yield Event.VALIDATION_END, step, epoch, False
            yield Event.EPOCH_END, step, epoch, False
        yield Event.TRAIN_END, step, self.epochs - 1, False

    def validated_steps(self):
        return [step for event, step, _, _ in self.events() if event is Event.VALIDATION_END]


SCHEDULES = st.builds(Schedule, st.integers(1, 4), st.integers(1, 5), st.frozensets(st.integers(1, 5), max_size=3))


def run(settings, schedule, *, tick=0.0):
    """Follow the decisions through a training in which every save succeeds; return what was saved at which step."""
    ledger, metrics, measured, clock, checked = Ledger(), {}, None, 0.0, 0.0
    ranked, lasts, fatal = [], [], []
    for event, step, epoch, follows in schedule.events():
        clock += tick if event is Event.STEP else 0.0
        if event is Event.VALIDATION_END:
            metrics, measured = {"m": float(step)}, step
        moment = Moment(
            event,
            step,
            epoch,
            elapsed=clock - checked,
            metrics=metrics,
            fresh=measured == step,
            validated=measured is not None,
            validation_follows=follows,
            saves_at_epoch_end=settings.save_on_train_epoch_end is not False,
        )
        verdict = decide(settings, moment, ledger)
        assert_consistent(settings, moment, ledger, verdict)
        ledger = replace(ledger, deferred=verdict.deferred, sequence=ledger.sequence + 1)
        checked = clock if verdict.time_due else checked
        entry = Entry(f"{step}", metrics.get("m"), step, epoch, ledger.sequence)
        if verdict.ranked:
            ranked.append((step, entry.score))
            ledger = ledger.with_entry(entry)
        if verdict.last:
            lasts.append(step)
            ledger = ledger.with_last(entry)
        if verdict.missing and verdict.fatal:
            fatal.append(step)
    return ranked, lasts, fatal


def assert_consistent(settings, moment, ledger, verdict):
    """What holds for every single verdict."""
    assert bool(verdict.reason) or not verdict.saves, "a save without a reason"
    assert not verdict.exception
    assert not (verdict.ranked and moment.step == ledger.ranked_step), "the same state ranked twice"
    assert not (verdict.last and moment.step == ledger.last_step), "the same state is last twice"
    if verdict.ranked and settings.monitor is not None:
        assert settings.monitor in moment.metrics
    asks = could_be_due(settings, moment.event, moment.step)
    if moment.event is Event.STEP and settings.train_time_interval is not None:
        asks = time_asks(settings.train_time_interval, ledger, moment.elapsed)
    if not asks and not ledger.deferred:
        assert not verdict.saves, "the cheap question missed a save"


def first_measured_from(schedule, step):
    """The first step from this one on at which a validation runs; None without one."""
    return next((at for at in schedule.validated_steps() if at >= step), None)


@examples(200)
@given(SCHEDULES, st.integers(1, 6), st.booleans())
def test_steps_without_a_monitor(schedule, n, save_last):
    """Every n steps is every n steps; ``last`` follows at those, at each epoch's end, and never twice for a state."""
    ranked, lasts, _ = run(make_settings(every_n_train_steps=n, save_last=save_last), schedule)
    total = schedule.epochs * schedule.batches
    due = list(range(n, total + 1, n))
    assert [step for step, _ in ranked] == due
    ends = range(schedule.batches, total + 1, schedule.batches)
    assert lasts == (sorted({*due, *ends}) if save_last else [])


@examples(300)
@given(SCHEDULES, st.integers(1, 6))
def test_steps_with_a_monitor_wait_for_their_metric(schedule, n):
    """A due step is ranked by a metric measured on the very state that is saved: there, or at the next validation."""
    settings = make_settings(every_n_train_steps=n, monitor="m", save_top_k=-1)
    ranked, _, _ = run(settings, schedule)
    total = schedule.epochs * schedule.batches
    waited = {first_measured_from(schedule, step) for step in range(n, total + 1, n)} - {None}
    assert [step for step, _ in ranked] == sorted(waited)
    assert all(score == step for step, score in ranked), "ranked by the metric of another state"


@examples(200)
@given(SCHEDULES, st.integers(1, 3), st.booleans())
def test_epochs_without_a_monitor(schedule, n, save_last):
    """Every n epochs, at the end of the training epoch: the states at those ends."""
    ranked, lasts, _ = run(make_settings(every_n_epochs=n, save_last=save_last), schedule)
    ends = [schedule.batches * (epoch + 1) for epoch in range(schedule.epochs)]
    assert [step for step, _ in ranked] == ends[n - 1 :: n]
    assert lasts == (ends if save_last else [])


@examples(200)
@given(SCHEDULES, st.integers(1, 3))
def test_epochs_at_the_end_of_validation(schedule, n):
    """With ``save_on_train_epoch_end=False`` each validation of every n-th epoch is a save, and nothing else is."""
    settings = make_settings(every_n_epochs=n, monitor="m", save_top_k=-1, save_on_train_epoch_end=False)
    ranked, _, fatal = run(settings, schedule)
    expected = [
        step for event, step, epoch, _ in schedule.events() if event is Event.VALIDATION_END and (epoch + 1) % n == 0
    ]
    assert ranked == [(step, float(step)) for step in expected]
    assert not fatal


@examples(200)
@given(SCHEDULES, st.integers(1, 3))
def test_epochs_with_a_monitor(schedule, n):
    """At an epoch's end the newest measurement ranks it; without one nothing is ranked, and it is said."""
    ranked, _, fatal = run(make_settings(every_n_epochs=n, monitor="m", save_top_k=-1), schedule)
    ends = [schedule.batches * (epoch + 1) for epoch in range(schedule.epochs)][n - 1 :: n]
    measured = [step for step in ends if any(at <= step for at in schedule.validated_steps())]
    assert [step for step, _ in ranked] == measured
    assert fatal == []


@examples(200)
@given(SCHEDULES, st.integers(1, 30), st.integers(1, 5))
def test_time(schedule, interval, tick):
    """A time trigger fires at the first step at which the interval is over, counted from the last firing."""
    settings = make_settings(train_time_interval=timedelta(seconds=interval))
    ranked, _, _ = run(settings, schedule, tick=tick)
    every = -(-interval // tick)
    assert [step for step, _ in ranked] == list(range(every, schedule.epochs * schedule.batches + 1, every))


TRIGGERS = st.one_of(
    st.fixed_dictionaries({"every_n_train_steps": st.integers(0, 4)}),
    st.fixed_dictionaries({"every_n_epochs": st.integers(0, 4)}),
    st.fixed_dictionaries({"train_time_interval": st.timedeltas(timedelta(0), timedelta(seconds=9))}),
)
RULES = st.fixed_dictionaries(
    {
        "monitor": st.none() | st.just("m"),
        "save_top_k": st.sampled_from((-1, 0, 1)),
        "save_on_train_epoch_end": st.none() | st.booleans(),
    }
)


@examples(300)
@given(SCHEDULES, TRIGGERS, RULES)
def test_last_is_the_final_state_whatever_the_trigger(schedule, trigger, rules):
    """With ``save_last`` the training never ends without the final state, in whatever configuration."""
    ranked, lasts, _ = run(make_settings(save_last=True, **trigger, **rules), schedule, tick=1.0)
    assert lasts[-1] == schedule.epochs * schedule.batches
    assert lasts == sorted(set(lasts))
    assert not ranked or rules["save_top_k"] != 0


@examples(100)
@given(SCHEDULES, st.integers(1, 4))
def test_triggers_that_are_off(schedule, n):
    """0 for every trigger saves nothing at all by itself."""
    assert run(make_settings(every_n_epochs=0), schedule) == ([], [], [])
    assert run(make_settings(every_n_train_steps=0), schedule) == ([], [], [])
    ranked, _, _ = run(make_settings(every_n_train_steps=n, save_top_k=0), schedule)
    assert ranked == []


@examples(100)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans())
def test_exceptions(step, ranked_step, last_step, wanted, save_last):
    """An exception is saved if that was asked for, something was trained, and no file has this very state."""
    settings = make_settings(save_on_exception=wanted, save_last=save_last)
    ledger = Ledger(ranked_step=ranked_step, last_step=last_step, deferred="waiting")
    verdict = decide(settings, Moment(Event.EXCEPTION, step, 0), ledger)
    assert verdict.exception == (wanted and step not in (0, ranked_step, last_step))
    assert not verdict.ranked
    assert verdict.deferred == "waiting"


@examples(100)
@given(st.integers(1, 9), st.integers(0, 9), st.booleans(), st.booleans(), st.sampled_from((0, 1, -1)))
def test_requests(step, ranked_step, known, validated, k):
    """A request saves now, ranked if the metric is known and the state is new; otherwise it says what is missing."""
    settings = make_settings(monitor="m", save_top_k=k)
    metrics = {"m": 1.0} if known else {"other": 1.0}
    moment = Moment(Event.REQUEST, step, 0, metrics=metrics, fresh=False, validated=validated)
    verdict = decide(settings, moment, Ledger(ranked_step=ranked_step))
    new = k != 0 and step != ranked_step
    assert verdict.ranked == (new and known)
    assert verdict.missing == (new and not known)
    assert verdict.fatal == (new and not known and validated)


@examples(100)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_signals(step, ranked_step, last_step, preempted_step, save_last):
    """A signal leaves this very state for a resume, once: as ``last`` if that is asked for, else by its own name."""
    ledger = Ledger(ranked_step=ranked_step, last_step=last_step, preempted_step=preempted_step, deferred="waiting")
    verdict = decide(make_settings(save_last=save_last), Moment(Event.SIGNAL, step, 0), ledger)
    there = step in (0, ranked_step, last_step, preempted_step)
    assert verdict.last == (save_last and step not in (0, last_step))
    assert verdict.preempted == (not save_last and not there)
    assert verdict.saves or there
    assert not verdict.ranked
    assert not verdict.exception
    assert verdict.deferred == "waiting"
