"""What rules would keep of a run that has not been run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Best, Course, EveryEpochs, EverySteps, Latest, Newer, Thin, Within, simulate
from holdfast.errors import ConfigurationError
from holdfast.front import simulation
from holdfast.policy.keeping import most_kept, plan, rules_of
from holdfast.policy.terms import Known
from tests.policy.strategies import KEEPING, NOW
from tests.support.properties import examples

RUN = {"steps": 100_000, "every": 500, "size": "14GB"}


def test_the_last_and_one_in_every_ten_thousand():
    """Known numbers: three last ones and ten round ones, one of which is among the last; one more while saving."""
    result = simulate(Latest(3) | EverySteps(10_000), **RUN)
    assert (result.saves, result.written, result.stride) == (200, 200 * 14 * 10**9, 1)
    assert result.end.files == 12
    assert result.end.size == 12 * 14 * 10**9
    assert result.kept_steps == (100_000, 99_500, 99_000, *range(90_000, 0, -10_000))
    assert result.peak.files == 13
    assert [point.files for point in result.points[:4]] == [1, 2, 3, 3]


def test_rules_may_be_given_as_text():
    """The notation is taken as the values are, and is what comes back."""
    text = "Latest(3) | Within('200GB')"
    assert simulate(text, **RUN) == simulate(Latest(3) | Within("200GB"), **RUN)
    assert simulate(text, **RUN).rules == text


def test_a_budget_is_never_exceeded_once_the_rules_are_applied():
    """Under a budget no point lies above it; while a save goes on there is one file more."""
    result = simulate(Within("100GB"), **RUN)
    assert max(point.size for point in result.points) == 98 * 10**9
    assert result.peak.size == 112 * 10**9


def test_time_and_epochs():
    """Rules of time follow the seconds of a step, rules of epochs the steps of an epoch."""
    result = simulate(Newer(timedelta(hours=1)), step_seconds=1.0, **RUN)
    assert result.end.files == 8
    assert (result.seconds, result.written_per_day) == (100_000, 200 * 14 * 10**9 * 0.864)
    result = simulate(EveryEpochs(10), epoch_steps=5000, **RUN)
    assert result.kept_steps == (100_000, 50_000)


def test_a_simulated_metric_is_the_same_each_time():
    """The same arguments give the same simulation; without noise the best of a falling metric are the last."""
    words = {**RUN, "monitor": "val_loss"}
    assert simulate(Best(3), **words) == simulate(Best(3), **words)
    calm = {"val_loss": Course(2.5, 0.4, 0)}
    assert simulate(Best(3), metrics=calm, **words).kept_steps == (100_000, 99_500, 99_000)
    assert simulate(Best(3, "acc", mode="max"), **RUN).metrics == {"acc": Course(0.0, 1.0)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"keep": Newer("7d")}, "seconds a step takes"),
        ({"keep": Thin(daily=7)}, "seconds a step takes"),
        ({"keep": Best(2)}, "the monitored one"),
        ({"keep": Latest(1), "every": 0}, "at least 1"),
        ({"keep": Latest(1), "every": 200_000}, "saves nothing"),
        ({"keep": Latest(1), "steps": 10**9, "every": 1}, "save less often"),
        ({"keep": Latest(1), "size": "big"}, "'big'"),
        ({"keep": Latest(1), "step_seconds": -1}, "-1"),
        ({"keep": Latest(1), "mode": "most"}, "'most'"),
        ({"keep": 3}, "no rule"),
        ({"keep": "Latest(3"}, "never closed"),
    ],
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused(words, says):
    """An argument that cannot be meant is an error that names it."""
    with pytest.raises(ConfigurationError, match=says):
        simulate(**{**RUN, **words})


def test_very_many_checkpoints_are_decided_about_less_often(monkeypatch):
    """Where very many are kept the rules are applied less often, and what is kept in the end is the same."""
    monkeypatch.setattr(simulation, "_MOST_LOOKS", 3000)
    result = simulate(EverySteps(2) | Latest(4), steps=600, every=1, size=1)
    assert result.stride > 1
    assert len(result.points) < 300
    assert [point.step for point in result.at(4)] == pytest.approx([150, 300, 450, 600], abs=result.stride)
    assert result.at(10**4) == list(result.points)
    assert result.end.files == result.peak.files == 302


@examples(30)
@given(st.lists(KEEPING, max_size=3), st.integers(1, 7), st.integers(1, 9))
def test_it_ends_where_the_rules_applied_once_would(rules, every, epoch_steps):
    """What is kept in the end is what the rules choose of all that was saved, and the estimate is an upper bound."""
    result = simulate(rules, steps=60, every=every, size=10, epoch_steps=epoch_steps, step_seconds=900, monitor="x")
    times = {step: NOW.replace(year=2000, month=1, day=3, hour=0) + timedelta(seconds=900 * step) for step in range(61)}
    steps = range(every, 61, every)
    calm = {name: Course(course.start, course.end, 0) for name, course in result.metrics.items()}
    again = simulate(
        rules, steps=60, every=every, size=10, epoch_steps=epoch_steps, step_seconds=900, monitor="x", metrics=calm
    )
    saved = [
        Known(
            str(step),
            step=step,
            epoch=(step - 1) // epoch_steps,
            sequence=step,
            metrics={name: course.value(step / 60, 0) for name, course in calm.items()},
            time=times[step],
        )
        for step in steps
    ]
    decided = plan(rules_of(rules), saved, times[steps[-1]], monitor="x", mode="min")
    assert list(again.kept_steps) == [item.step for item, found in zip(saved, decided, strict=True) if found.keep][::-1]
    most = most_kept(rules_of(rules), monitor="x", steps=60, epochs=60, saves=len(steps))
    assert most is not None
    assert max(point.files for point in result.points) <= most
