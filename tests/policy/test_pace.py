"""How often ranks talk, and how early a save begins: properties of the two pure rules."""

from __future__ import annotations

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.policy import haste
from holdfast.policy.pace import LONGEST, MOST, RESPONSE, SHARE, Pace
from tests.support.properties import examples

SECONDS = st.floats(1e-6, 1e4)
PACES = st.builds(
    Pace, st.lists(SECONDS, min_size=1, max_size=4).map(tuple), st.lists(SECONDS, min_size=1, max_size=4).map(tuple)
)
LIMITS = st.just(math.inf) | st.floats(0, 1e4)
SAVES = st.lists(st.floats(1e-3, 1e4), max_size=5)


@examples(300)
@given(PACES, st.integers(1, 10**6), LIMITS)
def test_the_interval_is_bounded(pace, before, limit):
    """At least a step, at most twice the last one; no longer than an answer may take, unless that is one step."""
    steps = pace.interval(before, limit)
    assert 1 <= steps <= 2 * before
    assert steps == 1 or steps * max(pace.steps) <= min(limit, LONGEST) * (1 + 1e-9)
    assert steps <= max(MOST, math.ceil(min(pace.costs) / SHARE / max(pace.steps)))


@examples(300)
@given(PACES, LIMITS)
def test_talking_costs_no_more_than_its_share(pace, limit):
    """Once the interval has grown, talks take a thousandth of the time, unless an answer would be too late by it."""
    steps = pace.interval(10**12, limit)
    share = min(pace.costs) / (steps * max(pace.steps))
    one_more = (steps + 1) * max(pace.steps) * (1 + 1e-9)
    assert share <= SHARE * (1 + 1e-9) or one_more > min(limit, LONGEST) or one_more > min(pace.costs) / SHARE


@examples(100)
@given(st.floats(1e-3, 1.0), st.floats(1e-6, 1e-3))
def test_an_answer_takes_about_a_second(step, cost):
    """Where talks are cheap, as many steps as fit into a second, and no fewer than half of those."""
    steps = Pace((step,), (cost,)).interval(10**6)
    assert min(steps + 1, MOST) * step >= RESPONSE / 2 or steps == MOST
    assert steps * step <= RESPONSE


def test_it_begins_and_begins_anew_with_one_step():
    """Until something is measured, and with a clock that stands still, the ranks talk at each step; it then doubles."""
    assert Pace().interval(5) == Pace((0.0,), (0.1,)).interval(5) == 1
    pace, steps, seen = Pace((0.001,), (1e-4,)), 1, []
    for _ in range(12):
        steps = pace.interval(steps)
        seen.append(steps)
    assert seen == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000]


@examples(200)
@given(st.floats(0, 1e5), SAVES, st.integers(0, 10**12), st.floats(0, 100))
def test_a_save_begins_early_enough(left, saves, size, between):
    """If it is not due now, then after the time between two looks there still is twice the slowest recent save left."""
    if not haste.due(left, saves, size, between):
        assert left - between > haste.FACTOR * max(saves, default=0.0)
        assert left - between > (size / haste.SLOW if not saves else 0.0)


@examples(200)
@given(st.floats(0.1, 1e5), SAVES, st.integers(0, 10**12))
def test_a_grace_period_leaves_room_for_the_save(grace, saves, size):
    """Ranks that talk in time for it leave the save the time that is expected, where there is as much at all."""
    room = haste.room(grace, saves, size)
    assert 0 <= room <= grace / 2
    assume(room > 0)
    assert room + haste.expected(saves, size) <= grace * (1 + 1e-9)
    assert not haste.too_short(grace, saves)
