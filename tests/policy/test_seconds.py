"""``EverySeconds("auto")``: the interval that follows from what saves cost, and how it settles."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import EverySeconds, optimal_interval
from holdfast.policy.seconds import LEAST, MOST, Spent
from holdfast.policy.when import Triggers
from tests.support.properties import examples

SPENT = st.builds(Spent, st.integers(0, 99), st.floats(0, 1e4), st.floats(0, 1e4), st.integers(1, 10_000))
AUTO = st.builds(
    EverySeconds, st.just("auto"), st.none() | st.floats(60, 1e9), st.floats(0.01, 100), st.floats(100, 1e5)
)


@examples(300)
@given(AUTO, SPENT)
def test_it_keeps_within_its_bounds(term, spent):
    """At least ``least``, at most ``most`` or what a commit takes and half of it more, and between them the optimum."""
    interval = term.interval(spent)
    floor = 1.5 * spent.commit if spent.saves else 0.0
    assert term.least <= interval <= max(term.most, floor)
    if spent.saves and max(term.least, floor) < interval < term.most:
        assert interval == optimal_interval(spent.stall, term.failing(spent.nodes))


@examples(200)
@given(AUTO, SPENT)
def test_more_nodes_never_save_more_rarely(term, spent):
    """On more machines a run fails more often, unless its failures are given: then nothing changes."""
    more = Spent(spent.saves, spent.stall, spent.commit, spent.nodes * 10)
    if 2 * term.failing(more.nodes) > spent.stall:
        assert term.interval(more) <= term.interval(spent) * 1.0001
    assert term.mtbf is None or term.interval(more) == term.interval(spent)


def test_the_assumed_failures_are_those_of_the_documentation():
    """One failure a day and 6.5 in 1,000 days of a node: 23.8 hours on one, 14.5 on 100, 1.7 on 2,048."""
    hours = [round(EverySeconds("auto").failing(nodes) / 3600, 1) for nodes in (1, 100, 2048)]
    assert hours == [23.8, 14.5, 1.7]
    assert EverySeconds("auto", mtbf="3h").failing(2048) == 3 * 3600
    assert EverySeconds("auto", mtbf=timedelta(hours=3)) == EverySeconds("auto", mtbf=10800)


def test_before_anything_is_measured_it_is_the_least():
    """The first save comes soon: from it on it is known what one costs."""
    assert EverySeconds("auto").interval() == LEAST
    assert EverySeconds("auto", least=5).interval(Spent(0, 99.0, 99.0)) == 5
    assert EverySeconds("auto").interval(Spent(1, 1e6, 0.0)) == MOST


def test_with_a_fixed_period_the_shorter_one_decides_and_says_so():
    """The reason tells an interval that was measured from one that was given."""
    when = Triggers.of((EverySeconds(200), EverySeconds("auto", mtbf="1d")))
    dear, cheap = Spent(3, 60.0), Spent(3, 0.05)
    assert when.due_by_time(199.0, dear) == []
    assert when.due_by_time(200.0, dear) == ["every 200 s"]
    assert when.due_by_time(93.0, cheap) == ["every 93 s, by what a save costs"]
    assert when.due_by_time(None, cheap) == []


@pytest.mark.parametrize("write", [0.1, 70.0, 900.0])
@pytest.mark.parametrize("stall", [0.001, 0.1, 20.0])
def test_it_settles(stall, write):
    """Saves that wait for each other where they come too soon: the interval settles after the first, and none waits."""
    term, spent, gaps, waited = EverySeconds("auto"), Spent(), [], 0.0
    for number in range(1, 12):
        gap = term.interval(spent)
        held = max(0.0, (write if number > 1 else 0.0) - gap)
        waited += held
        gaps.append(gap)
        spent = Spent(number, stall + held / min(number, 5), write if gap + held >= write else spent.commit)
    assert max(gaps[-4:]) == min(gaps[-4:])
    assert gaps[-1] >= write
    assert waited <= max(0.0, write - LEAST), "more than the one save before its cost was known had to wait"
