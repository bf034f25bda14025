"""Triggers as values, and what a run saves by them, against a model that knows the whole schedule beforehand."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import (
    All,
    At,
    Best,
    ConfigurationError,
    EveryEpochs,
    EverySeconds,
    EverySteps,
    Latest,
    OnImprovement,
    OnSignal,
    Within,
)
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.moment import Event, Moment
from holdfast.policy.settings import make_settings
from holdfast.policy.trigger import decide, measured_of, step_asks
from holdfast.policy.when import Triggers, better_of, triggers_of
from tests.policy.asking import could_be_due
from tests.policy.test_trigger import SCHEDULES, first_measured_from
from tests.support.properties import examples

VALUES = st.sampled_from((0.0, 1.0, 1.5, -2.0, math.nan, math.inf)) | st.floats(-9, 9)
IMPROVEMENTS = st.builds(
    OnImprovement, st.sampled_from(("m", "acc")), st.sampled_from(("min", "max")), st.sampled_from((0.0, 0.5))
)
TRIGGERS = st.one_of(
    st.builds(EverySteps, st.integers(1, 9)),
    st.builds(EveryEpochs, st.integers(1, 4)),
    st.builds(EverySeconds, st.floats(0.1, 30) | st.integers(1, 30)),
    st.builds(EverySeconds, st.just("auto"), st.none() | st.floats(1, 1e9), st.floats(0.1, 9), st.floats(10, 99)),
    st.builds(At, st.lists(st.integers(1, 20), max_size=3)),
    IMPROVEMENTS,
    st.just(OnSignal()) | st.builds(OnSignal, st.sampled_from((signal.SIGUSR1, "SIGTERM"))),
)
SENTENCES = st.lists(TRIGGERS, max_size=5)


def follow(settings, schedule, *, values=(), tick=0.0):
    """Follow the decisions through a training in which every save succeeds; return the entries that were saved."""
    ledger, metrics, at, clock, checked, measured_values = Ledger(), {}, None, 0.0, 0.0, list(values)
    saved = []
    for event, step, epoch, follows in schedule.events():
        clock += tick if event is Event.STEP else 0.0
        if event is Event.VALIDATION_END:
            metrics, at = {"m": measured_values.pop(0) if measured_values else float(step)}, step
        fresh = at == step
        moment = Moment(
            event,
            step,
            epoch,
            elapsed=clock - checked,
            metrics=metrics,
            fresh=fresh,
            measured=settings.watched if fresh else frozenset(),
            validated=at is not None,
            validation_follows=follows,
            saves_at_epoch_end=settings.save_on_train_epoch_end is not False,
        )
        verdict = decide(settings, moment, ledger)
        assert verdict.reason or not verdict.saves, "a save without a reason"
        assert_asked(settings, moment, ledger, verdict)
        ledger = replace(ledger, deferred=verdict.deferred, sequence=ledger.sequence + 1)
        checked = clock if verdict.time_due else checked
        if verdict.ranked:
            own = {name: value for name, value in metrics.items() if name not in settings.watched - moment.measured}
            saved.append(Entry(f"{ledger.sequence}", own.get("m"), step, epoch, ledger.sequence, metrics=own))
            best = better_of(ledger.saved_best, settings.when.values(measured_of(moment)))
            ledger = replace(ledger.with_entry(saved[-1]), saved_best=best, deferred=verdict.deferred)
    return saved


def assert_asked(settings, moment, ledger, verdict):
    """The cheap questions at a step miss no save."""
    if moment.event is not Event.STEP or ledger.deferred or not verdict.saves:
        return
    assert could_be_due(settings, moment.event, moment.step)
    if settings.when.looks_at_every_step:
        assert step_asks(settings, ledger, moment.step, moment.elapsed, measured_of(moment))


def due_by_count(terms, schedule):
    """The steps at which steps and epochs ask for a save."""
    when = Triggers.of(terms)
    return {
        step
        for event, step, epoch, _ in schedule.events()
        if (event is Event.STEP and when.due_at_step(step)) or (event is Event.EPOCH_END and when.due_at_epoch(epoch))
    }


@examples(300)
@given(SCHEDULES, SENTENCES)
def test_a_sentence_saves_where_any_of_its_triggers_does(schedule, terms):
    """Without a metric the states that are saved are those at which at least one trigger is due, each once."""
    counted = [term for term in terms if isinstance(term, (EverySteps, EveryEpochs, At))]
    saved = follow(make_settings(save_when=counted, keep=All()), schedule)
    assert [entry.step for entry in saved] == sorted(due_by_count(counted, schedule))


@examples(200)
@given(SCHEDULES, SENTENCES, st.lists(VALUES, max_size=9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_order_of_triggers_and_repeating_them_mean_nothing(schedule, terms, values, tick, dice):
    """However a sentence is ordered, and whatever stands in it twice, it is the same value, and saves the same."""
    shuffled = [*terms, *terms[:2]]
    dice.shuffle(shuffled)
    one, other = (make_settings(save_when=given, keep=All(), monitor="m") for given in (terms, shuffled))
    assert one == other
    assert one.when == other.when
    assert follow(one, schedule, values=values, tick=tick) == follow(other, schedule, values=values, tick=tick)


@examples(200)
@given(SCHEDULES, SENTENCES, TRIGGERS, st.lists(VALUES, max_size=9))
def test_another_trigger_saves_no_less(schedule, terms, another, values):
    """A trigger that is added takes no save away that steps, epochs or single steps have asked for."""
    counted = due_by_count(terms, schedule)
    saved = {
        entry.step for entry in follow(make_settings(save_when=[*terms, another], keep=All()), schedule, values=values)
    }
    assert counted <= saved


SUGAR = st.one_of(
    st.integers(1, 6).map(lambda n: ({"every_n_train_steps": n}, EverySteps(n))),
    st.integers(1, 4).map(lambda n: ({"every_n_epochs": n}, EveryEpochs(n))),
    st.integers(1, 9).map(lambda s: ({"train_time_interval": timedelta(seconds=s)}, EverySeconds(s))),
)


@examples(300)
@given(SCHEDULES, SUGAR, st.sampled_from((None, "m")), st.sampled_from((-1, 1)), st.sampled_from((None, True, False)))
def test_the_seed_words_are_sugar(schedule, sugar, monitor, k, at_epoch_end):
    """Each of Lightning's three words makes the very value that its trigger makes, and so the same decisions."""
    words, term = sugar
    rest = {"monitor": monitor, "save_top_k": k, "save_on_train_epoch_end": at_epoch_end}
    one, other = make_settings(**words, **rest), make_settings(save_when=term, **rest)
    assert one.when == other.when
    assert follow(one, schedule, tick=1.0) == follow(other, schedule, tick=1.0)


@examples(300)
@given(SCHEDULES, st.lists(VALUES, max_size=30), st.sampled_from(("min", "max")), st.sampled_from((0.0, 0.5)))
def test_an_improvement_is_saved_when_it_is_measured(schedule, values, mode, delta):
    """Each validation whose value betters all that were saved by enough is saved there, with that value; no other."""
    settings = make_settings(save_when=OnImprovement("m", mode, delta), keep=All())
    best, expected = None, []
    given_values = iter(values)
    for step in schedule.validated_steps():
        value = next(given_values, float(step))
        gain = math.inf if best is None else best - value if mode == "min" else value - best
        if not math.isnan(value) and gain > 0 and gain >= delta:
            best = value
            expected.append((step, value))
    assert [(entry.step, entry.score) for entry in follow(settings, schedule, values=values)] == expected


@examples(300)
@given(SCHEDULES, st.integers(1, 6))
def test_with_keep_a_due_step_is_saved_at_once_and_the_next_measured_state_too(schedule, n):
    """With ``keep`` no due step waits; a state that was measured follows, so that there is something to rank."""
    settings = make_settings(save_when=EverySteps(n), keep=Best(2, "m") | Latest(2))
    saved = follow(settings, schedule)
    due = set(range(n, schedule.epochs * schedule.batches + 1, n))
    steps = {entry.step for entry in saved}
    assert due <= steps
    assert steps <= due | {first_measured_from(schedule, step) for step in due}
    assert all(entry.score in (None, entry.step) for entry in saved), "ranked by the metric of another state"
    ranked = {entry.step for entry in saved if entry.score is not None}
    assert {first_measured_from(schedule, step) for step in due} - {None} <= ranked


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: EverySeconds(0), "0"),
        (lambda: EverySeconds("5"), "'5'"),
        (lambda: EverySeconds(5, mtbf=3600), "EverySeconds(5, ...)"),
        (lambda: EverySeconds("auto", mtbf=0), "0"),
        (lambda: EverySeconds("auto", mtbf="3 fortnights"), "fortnights"),
        (lambda: EverySeconds("auto", least=9, most=8), "least=9"),
        (lambda: EverySeconds("auto", least=math.inf), "inf"),
        (lambda: EverySeconds(math.inf), "inf"),
        (lambda: EverySeconds(True), "True"),
        (lambda: EverySteps(0), "0"),
        (lambda: At([0]), "0"),
        (lambda: At(["7"]), "'7'"),
        (lambda: At([2.5]), "2.5"),
        (lambda: OnSignal("SIGNOTHING"), "SIGNOTHING"),
        (lambda: OnSignal("SIG_DFL"), "SIG_DFL"),
        (lambda: OnSignal(10_000), "10000"),
        (lambda: OnImprovement(""), "''"),
        (lambda: OnImprovement("m", "low"), "'low'"),
        (lambda: OnImprovement("m", min_delta=-1), "-1"),
        (lambda: OnImprovement("m", min_delta=math.nan), "nan"),
    ],
)
def test_a_wrong_argument_is_named(make, named):
    """A trigger that cannot be meant is an error when it is written, which names the value."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"save_when": EverySteps(2), "every_n_epochs": 3}, ("save_when", "every_n_epochs", "3")),
        ({"save_when": [], "every_n_train_steps": 5}, ("save_when", "every_n_train_steps")),
        ({"save_when": At([1]), "train_time_interval": timedelta(1)}, ("save_when", "train_time_interval")),
        ({"keep": Latest(2), "save_top_k": 1}, ("keep", "Latest(2)", "save_top_k", "1")),
        ({"keep": EverySeconds(2)}, ("EverySeconds(2)",)),
        ({"save_when": Latest(2)}, ("save_when", "Latest(2)")),
        ({"save_when": EverySteps(2) | Within(5)}, ("save_when", "Within(5)")),
        ({"save_when": "Latest(2)"}, ("Latest(2)", "EverySteps(1000)")),
        ({"save_when": "EverySteps(2"}, ("EverySteps(2", "never closed")),
        ({"save_when": 5}, ("save_when", "5")),
        ({"keep": 5}, ("5",)),
    ],
)
def test_what_contradicts_itself_is_named(words, named):
    """Words that say the same thing twice, and terms in the wrong place, are errors that name both."""
    with pytest.raises(ConfigurationError) as caught:
        make_settings(**words)
    assert all(part in str(caught.value) for part in named), str(caught.value)


@examples(200)
@given(SENTENCES)
def test_the_notation_is_python(terms):
    """What is written into the manifest is read by Python as the same triggers."""
    names = {name: getattr(holdfast, name) for name in holdfast.__all__ if name[0].isupper()}
    text = make_settings(save_when=terms).notation["save_when"]
    again = eval(text, names)  # noqa: S307 - the test wrote it
    assert triggers_of(again) == triggers_of(terms)


@examples(200)
@given(SENTENCES)
def test_the_notation_is_read_back(terms):
    """``save_when`` takes the text that a manifest has, as it takes the triggers."""
    settings = make_settings(save_when=terms)
    assert make_settings(save_when=settings.notation["save_when"]) == settings


def test_the_rules_name_the_monitor_if_they_name_one():
    """If all rules rank by one metric, the run is about that one; where there are two, nobody guesses."""
    one = make_settings(keep=Latest(2) | Best(3, "acc", mode="max"))
    assert (one.monitor, one.mode, one.save_top_k) == ("acc", "max", -1)
    assert make_settings(keep=Best(3, "acc") | Best(1, "loss")).monitor is None
    assert make_settings(keep=Best(3, "acc"), monitor="loss").monitor == "loss"


def test_of_several_periods_in_seconds_the_shortest_decides():
    """Time is one clock: it starts again whenever it has asked for a save."""
    assert Triggers.of((EverySeconds(30), EverySeconds(9))).seconds == 9
