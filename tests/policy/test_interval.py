"""The interval between two saves, against failures that are simulated and against a search for the lowest point."""

from __future__ import annotations

import math
import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ConfigurationError, expected_waste, optimal_interval
from tests.support.properties import examples

MEANS = st.floats(60.0, 1e8)
SHARES = st.floats(1e-9, 0.5)  # what a save costs, as a share of the time between failures


def lowest(cost, mean):
    """Search for the interval with the least waste: by thirds, since there is one lowest point."""
    low, high = math.log(1e-4 * cost), math.log(100 * mean)
    for _ in range(200):
        one, other = low + (high - low) / 3, high - (high - low) / 3
        if expected_waste(math.exp(one), cost, mean) < expected_waste(math.exp(other), cost, mean):
            high = other
        else:
            low = one
    return math.exp(low)


@examples(300)
@given(MEANS, SHARES)
def test_dalys_interval_wastes_no_more_than_the_best_one(mean, share):
    """For saves of up to half the time between failures, Daly's interval wastes the least, to within 1% of it."""
    best = expected_waste(lowest(share * mean, mean), share * mean, mean)
    assert expected_waste(optimal_interval(share * mean, mean), share * mean, mean) <= best * 1.01 + 1e-12


@examples(300)
@given(MEANS, st.floats(1e-9, 1e-3))
def test_for_cheap_saves_youngs_interval_is_the_same(mean, share):
    """Where a save is cheap, the square root of 2 * cost * mean is Daly's interval to within some hundredths."""
    young = optimal_interval(share * mean, mean, formula="young")
    assert young == pytest.approx(math.sqrt(2 * share) * mean)
    assert young == pytest.approx(optimal_interval(share * mean, mean), rel=0.05)


@examples(300)
@given(MEANS, SHARES, st.floats(1.05, 20))
def test_dearer_saves_and_rarer_failures_make_it_longer(mean, share, factor):
    """The interval grows with the cost of a save and with the time between failures."""
    cost, usual = share * mean, optimal_interval(share * mean, mean)
    assert optimal_interval(cost, mean * factor) > usual
    assert optimal_interval(min(cost * factor, mean), mean) >= usual * 0.999 or cost * factor > mean


@examples(200)
@given(MEANS, SHARES, st.integers(1, 10_000), st.floats(0, 1e6))
def test_nodes_share_the_failures_and_the_write_is_a_floor(mean, share, nodes, write):
    """A run on n nodes fails n times as often; an interval is never shorter than a write takes."""
    cost = share * mean / nodes
    plain = optimal_interval(cost, mean / nodes)
    assert optimal_interval(cost, mean, nodes=nodes) == pytest.approx(plain)
    assert optimal_interval(cost, mean, nodes=nodes, write=write) == pytest.approx(max(write, plain))


@pytest.mark.parametrize(("cost", "mean", "restart"), [(2.0, 300.0, 0.0), (30.0, 600.0, 60.0), (1.0, 40.0, 5.0)])
def test_the_expected_waste_is_that_of_a_simulated_run(cost, mean, restart):
    """Failures that are thrown one by one waste what the formula says, at intervals below, at and above the best."""
    dice = random.Random(6)  # noqa: S311 - repeatable
    for interval in (optimal_interval(cost, mean) * factor for factor in (0.4, 1.0, 2.5)):
        clock, done, wanted, next_failure = 0.0, 0, 20_000, dice.expovariate(1 / mean)
        ready = 0.0
        while done < wanted:
            end = ready + interval + cost
            if next_failure >= end:
                clock = ready = end
                done += 1
                continue
            clock = next_failure
            next_failure = clock + dice.expovariate(1 / mean)
            while next_failure < clock + restart:
                clock = next_failure
                next_failure = clock + dice.expovariate(1 / mean)
            ready = clock + restart
        simulated = 1 - wanted * interval / clock
        assert simulated == pytest.approx(expected_waste(interval, cost, mean, restart=restart), rel=0.05)


def test_the_examples_of_the_page_and_other_units():
    """Numbers to check by hand: 1.5 s against a day; dearer than twice the mean; spans for seconds; no cost at all."""
    assert optimal_interval(1.5, 86400, formula="young") == pytest.approx(509.12, abs=0.01)
    assert optimal_interval(1.5, 86400) == pytest.approx(508.12, abs=0.01)
    assert optimal_interval(90, 30) == 30
    assert optimal_interval(timedelta(seconds=1.5), timedelta(days=1)) == optimal_interval(1.5, 86400)
    assert optimal_interval(0, 86400) == 0
    assert expected_waste(10, 1e300, 1) == 1.0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: optimal_interval(-1, 60), "-1"),
        (lambda: optimal_interval(1, 0), "0"),
        (lambda: optimal_interval(1, math.inf), "inf"),
        (lambda: optimal_interval("1", 60), "'1'"),
        (lambda: optimal_interval(True, 60), "True"),
        (lambda: optimal_interval(1, 60, nodes=0), "0"),
        (lambda: optimal_interval(1, 60, write=-1), "write"),
        (lambda: optimal_interval(1, 60, formula="guess"), "'guess'"),
        (lambda: expected_waste(0, 1, 60), "interval"),
        (lambda: expected_waste(1, 1, 60, restart=math.nan), "restart"),
    ],
)
def test_a_wrong_argument_is_named(call, named):
    """What cannot be meant is an error that names the value."""
    with pytest.raises(ConfigurationError) as caught:
        call()
    assert named in str(caught.value)
