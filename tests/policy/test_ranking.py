"""Which checkpoint is better."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy import ranking
from holdfast.policy.ledger import Entry
from tests.policy.strategies import MODES, SCORES, entries
from tests.support.properties import examples


def beats(one, other, mode):
    """Whether one checkpoint stands before another, by the words of the contract alone."""
    if math.isnan(one.score) or math.isnan(other.score):
        if math.isnan(one.score) and math.isnan(other.score):
            return one.sequence < other.sequence
        return math.isnan(other.score)
    if one.score == other.score:
        return one.sequence < other.sequence
    return one.score < other.score if mode == "min" else one.score > other.score


@examples(200)
@given(entries(), MODES)
def test_the_order_is_that_of_the_contract(found, mode):
    """Everyone in the ranking beats everyone behind, by the contract's words for NaN, ties and mode."""
    order = ranking.ranked(found, mode)
    assert sorted(item.name for item in order) == sorted(item.name for item in found)
    for place, one in enumerate(order):
        assert all(beats(one, other, mode) for other in order[place + 1 :])


@examples(200)
@given(entries(unscored=True), MODES, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(found, mode, dice):
    """The same checkpoints in another order are ranked the same."""
    shuffled = list(found)
    dice.shuffle(shuffled)
    for answer in (ranking.ranked, ranking.best, ranking.worst):
        assert repr(answer(shuffled, mode)) == repr(answer(found, mode))


@examples(200)
@given(entries(unscored=True), MODES)
def test_nan_is_never_the_best(found, mode):
    """The best has a real score, as good as any other's; without real scores there is no best."""
    real = [item.score for item in found if item.score is not None and not math.isnan(item.score)]
    best = ranking.best(found, mode)
    assert (best is None) == (not real)
    if best is not None:
        assert best.score == (min(real) if mode == "min" else max(real))
        assert best.sequence == min(item.sequence for item in found if item.score == best.score)


@examples(200)
@given(entries(), MODES)
def test_the_worst_is_nan_where_there_is_one(found, mode):
    """The worst is the youngest NaN, or else the youngest of the worst score."""
    worst = ranking.worst(found, mode)
    broken = [item for item in found if math.isnan(item.score)]
    if broken:
        assert worst == max(broken, key=lambda item: item.sequence)
    elif found:
        extreme = (max if mode == "min" else min)(item.score for item in found)
        alike = [item for item in found if item.score == extreme]
        assert worst == max(alike, key=lambda item: item.sequence)
    else:
        assert worst is None


@examples(300)
@given(entries(unscored=True), SCORES, st.integers(-1, 6), MODES)
def test_admission_agrees_with_sorting(found, score, k, mode):
    """A new score is admitted exactly if, sorted in as the youngest, it is among the first k."""
    newcomer = Entry("new.ckpt", score, 100, 25, 100)
    order = ranking.ranked([*found, newcomer], mode)
    expected = k == -1 or order.index(newcomer) < k
    assert ranking.admits(found, score, k, mode) == expected


@examples(100)
@given(entries(), st.integers(1, 4), MODES)
def test_an_equal_score_does_not_push_out_the_older(found, k, mode):
    """Where the ranking is full, a score equal to the last place's is not admitted."""
    order = ranking.ranked(found, mode)
    if len(order) >= k:
        assert not ranking.admits(found, order[k - 1].score, k, mode)


@examples(100)
@given(entries(unscored=True), MODES)
def test_ranking_changes_nothing_in_its_values(found, mode):
    """Ranking is a function: its input is the same afterwards."""
    copies = [replace(item) for item in found]
    ranking.ranked(found, mode)
    assert repr(found) == repr(copies)
