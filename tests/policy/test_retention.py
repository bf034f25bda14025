"""What is kept, and the floor below every rule."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy import ranking
from holdfast.policy.ledger import Entry
from tests.policy.oracle import plan_by_words as plan
from tests.policy.strategies import MODES, entries
from tests.support.properties import examples

MONITORS = st.sampled_from((None, "val_loss"))
TOP_K = st.integers(-1, 6)


def kept(found, **rules):
    return {decision.name for decision in plan(found, **rules) if decision.keep}


def floor(found, monitor, mode, resumed_from):
    """The names that no rule may drop."""
    names = {max(found, key=lambda item: item.sequence).name} if found else set()
    real = [item for item in found if item.score is not None and not math.isnan(item.score)]
    if monitor is not None and real:
        best = (min if mode == "min" else max)(item.score for item in real)
        names.add(min((item for item in real if item.score == best), key=lambda item: item.sequence).name)
    return names | (set(resumed_from) & {item.name for item in found})


@examples(300)
@given(entries(unscored=True), MONITORS, MODES, TOP_K, st.sets(st.sampled_from(("0.ckpt", "3.ckpt", "elsewhere.ckpt"))))
def test_exactly_the_top_k_and_the_floor_are_kept(found, monitor, mode, k, resumed_from):
    """Kept are the newest, the best, the one resumed from and the k best; all for -1 and 0; nothing else, ever."""
    k = k if monitor is not None else min(k, 1)  # no other words are taken
    top = {item.name for item in ranking.ranked(found, mode)[: max(k, 0)]} if monitor is not None else set()
    expected = floor(found, monitor, mode, resumed_from) | top
    if k in (-1, 0):
        expected = {item.name for item in found}
    assert kept(found, monitor=monitor, mode=mode, save_top_k=k, resumed_from=resumed_from) == expected


@examples(200)
@given(entries(unscored=True), MONITORS, MODES, TOP_K, st.randoms(use_true_random=False))
def test_the_order_of_the_listing_does_not_matter(found, monitor, mode, k, dice):
    """However the directory lists them, the same checkpoints are kept, for the same reasons."""
    shuffled = list(found)
    dice.shuffle(shuffled)
    rules = {"monitor": monitor, "mode": mode, "save_top_k": k}
    assert sorted(map(repr, plan(found, **rules))) == sorted(map(repr, plan(shuffled, **rules)))


@examples(200)
@given(entries(unscored=True), MONITORS, MODES, TOP_K)
def test_every_checkpoint_gets_an_answer_with_a_reason(found, monitor, mode, k):
    """One decision for each checkpoint, in the given order, each with its reason."""
    decisions = plan(found, monitor=monitor, mode=mode, save_top_k=k)
    assert [decision.name for decision in decisions] == [item.name for item in found]
    assert all(decision.reason for decision in decisions)


@examples(200)
@given(entries(unscored=True), MONITORS, MODES, TOP_K)
def test_deciding_again_about_what_was_kept_keeps_it(found, monitor, mode, k):
    """Retention is done in one pass: asked again about what it kept, it drops nothing more."""
    rules = {"monitor": monitor, "mode": mode, "save_top_k": k}
    first = kept(found, **rules)
    assert kept([item for item in found if item.name in first], **rules) == first


@examples(100)
@given(entries(), MODES, st.integers(1, 5))
def test_a_larger_k_keeps_no_less(found, mode, k):
    """Keeping k + 1 keeps all that keeping k does."""
    rules = {"monitor": "val_loss", "mode": mode}
    assert kept(found, save_top_k=k, **rules) <= kept(found, save_top_k=k + 1, **rules)


def test_no_rule_can_remove_everything():
    """With nothing but NaN the newest is still there; and ``save_top_k=0``, which saves none, drops none."""
    found = [Entry(f"{place}.ckpt", math.nan, place, 0, place) for place in range(4)]
    assert kept(found, monitor="val_loss", mode="min", save_top_k=1) == {"0.ckpt", "3.ckpt"}
    assert kept(found, monitor="val_loss", mode="min", save_top_k=0) == {item.name for item in found}


def test_a_real_score_goes_before_nan():
    """A NaN never takes the place of a real score, and is kept only as the newest."""
    found = [Entry("real.ckpt", 5.0, 1, 0, 1), Entry("nan.ckpt", math.nan, 2, 0, 2), Entry("new.ckpt", 6.0, 3, 0, 3)]
    for mode in ("min", "max"):
        assert kept(found, monitor="val_loss", mode=mode, save_top_k=2) == {"real.ckpt", "new.ckpt"}


def test_the_reasons_say_why():
    """The reasons read as a person would say them, the place in the ranking included."""
    found = [Entry("a", 1.0, 1, 0, 1), Entry("b", 2.0, 2, 0, 2), Entry("c", 3.0, 3, 0, 3), Entry("d", 4.0, 4, 0, 4)]
    reasons = [d.reason for d in plan(found, monitor="acc", mode="max", save_top_k=2, resumed_from={"b"})]
    assert reasons == [
        "not among the best 2 by acc",
        "the run resumed from it",
        "2 of the 2 highest acc",
        "1 of the 2 highest acc, the newest",
    ]
    assert [d.reason for d in plan(found[:1], monitor=None, mode="min", save_top_k=1)] == ["the newest"]
    assert [d.reason for d in plan(found[:1], monitor=None, mode="min", save_top_k=-1)] == ["all are kept, the newest"]
    assert [d.rank for d in plan(found, monitor="acc", mode="max", save_top_k=2)] == [4, 3, 2, 1]
