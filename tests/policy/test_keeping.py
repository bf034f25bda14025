"""The rules of what to keep: each rule, their union, the floor, the budgets."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from holdfast.errors import ConfigurationError
from holdfast.policy.budget import Within
from holdfast.policy.keeping import most_kept, plan, rules_for, rules_of
from holdfast.policy.rules import All, Best, EveryEpochs, EverySteps, Latest, Newer, Pinned
from holdfast.policy.terms import AnyOf, Known, Term
from holdfast.policy.thinning import Thin

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


class Signalled(Term):
    """A trigger that is no rule."""

    def __str__(self):
        return "Signalled()"


def history(*steps, **words):
    return [Known(f"{step}.ckpt", step=step, sequence=place, **words) for place, step in enumerate(steps, 1)]


def kept(rules, found, **words):
    words = {"monitor": None, "mode": "min", **words}
    return [decision.name for decision in plan(rules_of(rules), found, NOW, **words) if decision.keep]


def test_terms_are_joined_in_any_order():
    """Terms joined by ``|`` are flat, equal in any order, and one given twice counts once."""
    one, other, third = Latest(3), Best(2, "val_loss"), EverySteps(1000)
    assert (one | other) | third == third | (other | one)
    assert hash(one | other) == hash(other | one)
    assert isinstance(one | other, AnyOf)
    assert one | one == one
    assert one | other | one == one | other
    assert str(one | other) == "Latest(3) | Best(2, 'val_loss', mode='min')"


def test_what_is_no_rule_is_refused():
    """What cannot say what to keep is named in the error."""
    assert rules_of([]) == ()
    assert rules_of([Latest(1) | All(), Latest(1)]) == (Latest(1), All())
    with pytest.raises(ConfigurationError, match="7 is no rule"):
        rules_of([Latest(1), 7])
    with pytest.raises(ConfigurationError, match="'Latest' means nothing here"):
        rules_of("Latest")
    with pytest.raises(ConfigurationError, match="says when to save"):
        rules_of([Latest(1), Signalled()])
    assert rules_of("Latest(1) | All()") == (Latest(1), All())
    with pytest.raises(ConfigurationError, match="no zone"):
        Latest(1).plan([], datetime(2026, 1, 1))  # noqa: DTZ001 - such a time is what is refused


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Latest(-1), "at least 0"),
        (lambda: Latest(True), "integer"),
        (lambda: Best("val_loss"), "integer"),
        (lambda: Best(1, 3), "name of a metric"),
        (lambda: Best(1, "acc", mode="most"), "'most'"),
        (lambda: Best(1, mode="max"), "names no metric"),
        (lambda: EverySteps(0), "at least 1"),
        (lambda: EveryEpochs(1.5), "1.5"),
        (lambda: Newer(7), "timedelta"),
        (lambda: Newer("7 moons"), "7 moons"),
        (lambda: Newer(timedelta(0)), "above 0"),
        (lambda: Within("200 apples"), "200 apples"),
        (lambda: Within(0), "at least 1"),
        (Thin, "says nothing"),
        (lambda: Thin(hourly=-2), "at least -1"),
        (lambda: Thin(steps=[1000]), "how many blocks"),
        (lambda: Thin(steps={0: 1}), "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(make, says):
    """A rule with an argument that cannot be meant is never made; the error names the value or the bound."""
    with pytest.raises(ConfigurationError, match=says):
        make()


def test_the_last_and_one_in_every_thousand():
    """The last two stay, and the first at or after each thousand, where saves fall on thousands and where not."""
    found = history(500, 1000, 1500, 2000, 2500, 3000, 3500)
    assert kept(Latest(2) | EverySteps(1000), found) == ["1000.ckpt", "2000.ckpt", "3000.ckpt", "3500.ckpt"]
    odd = history(333, 777, 1111, 1555, 3001, 3100)
    assert kept(EverySteps(1000), odd) == ["1111.ckpt", "3001.ckpt", "3100.ckpt"]


def test_one_in_every_ten_epochs():
    """Of every tenth epoch the last checkpoint stays; where that epoch has none, the next one's."""
    found = [Known(f"{epoch}-{part}", epoch=epoch, sequence=epoch * 2 + part) for epoch in range(25) for part in (0, 1)]
    found = [item for item in found if item.epoch != 19]
    assert kept(EveryEpochs(10), found) == ["9-1", "20-1", "24-1"]


def test_the_best_by_several_metrics():
    """Each ``Best`` keeps its own, and what lacks its metric is not ranked by it."""
    scores = ({"loss": 3.0, "acc": 0.9}, {"loss": 1.0, "acc": 0.1}, {"loss": 2.0, "acc": 0.5}, {"loss": 9.0}, {})
    found = [Known(str(place), sequence=place, metrics=metrics) for place, metrics in enumerate(scores)]
    assert kept(Best(2, "loss") | Best(1, "acc", mode="max"), found) == ["0", "1", "2", "4"]
    assert kept(Best(1), found, monitor="acc", mode="max") == ["0", "4"]


def test_newer_than():
    """What is less than a day old stays, and what has no time or one in the future."""
    times = (NOW - timedelta(days=2), NOW - timedelta(hours=23), None, NOW + timedelta(days=400), NOW)
    found = [Known(str(place), sequence=place, time=time) for place, time in enumerate(times)]
    assert kept(Newer("24h"), found) == ["1", "2", "3", "4"]


def test_thinned_by_time():
    """One for each of the last hours and days with saves, the newest of each."""
    found = [
        Known(f"{minutes}", sequence=place, time=NOW + timedelta(minutes=minutes))
        for place, minutes in enumerate(range(0, 3 * 24 * 60, 20))
    ]
    names = kept(Thin(hourly=3, daily=2), found)
    assert names == ["3580", "4180", "4240", "4300"]


def test_thinned_by_steps():
    """Dense when young and sparse when old, and the round steps are what stays."""
    found = history(*range(100, 5200, 100))
    names = kept(Thin(steps={200: 3, 1000: -1}), found)
    assert names == [f"{step}.ckpt" for step in (1000, 2000, 3000, 4000, 4800, 5000, 5100)]


def test_pinned_and_resumed_from_stay():
    """Without any rule there is the floor: the newest, the best, the pinned, and the one resumed from."""
    found = [
        Known("old"),
        Known("pinned", sequence=1, pinned=True),
        Known("start", sequence=2),
        Known("best", sequence=3, metrics={"x": 1.0}),
        Known("new", sequence=4, metrics={"x": 2.0}),
    ]
    decisions = plan((), found, NOW, monitor="x", mode="min", resumed_from={"start"})
    assert [decision.rules for decision in decisions] == [
        (),
        ("floor: pinned",),
        ("floor: resumed from",),
        ("floor: best by x",),
        ("floor: newest",),
    ]
    assert [decision.reason for decision in decisions] == [
        "no rule keeps it",
        "pinned",
        "the run resumed from it",
        "the best by x",
        "the newest",
    ]


def test_a_budget_takes_the_oldest():
    """A budget alone keeps what fits; the oldest goes first, the floor never."""
    found = history(*range(1, 11), size=10)
    assert kept(Within(35), found) == ["8.ckpt", "9.ckpt", "10.ckpt"]
    assert kept(Within(1), found) == ["10.ckpt"]
    assert kept(EverySteps(4) | Within(25), found) == ["8.ckpt", "10.ckpt"]
    last = Known("last.ckpt", step=10, sequence=11, size=10, role="last", file_id="a")
    shared = [*found[:-1], Known("10.ckpt", step=10, sequence=10, size=10, file_id="a"), last]
    assert kept(Within(30), shared) == ["8.ckpt", "9.ckpt", "10.ckpt", "last.ckpt"]
    apart = [*found, replace(last, file_id="")]
    assert kept(Within(30), apart) == ["9.ckpt", "10.ckpt", "last.ckpt"]


def test_each_run_for_itself():
    """Rules act within one run; another run, callback or folder in the same listing has its own newest."""
    found = [
        Known(f"{run}{owner}{folder}{sequence}", sequence=sequence, run=run, owner=owner, folder=folder)
        for run, owner, folder in (("r", "a", ""), ("r", "b", ""), ("s", "a", ""), ("s", "a", "copy/"))
        for sequence in (1, 2, 3)
    ]
    assert kept(Latest(1), found) == ["ra3", "rb3", "sa3", "sacopy/3"]


def test_what_no_rule_decides_about_is_kept():
    """Other roles are always kept, each for its own reason."""
    roles = ("last", "exception", "preempted", "by hand", "foreign", None)
    found = [Known(str(role), role=role) for role in roles]
    assert [(decision.keep, decision.reason) for decision in Latest(0).plan(found, NOW)] == [
        (True, "the last state"),
        (True, "saved at an exception: never removed"),
        (True, "saved at a signal: kept until the run commits a newer one"),
        (True, "saved by hand: never removed"),
        (True, "no manifest: never removed"),
        (True, "renamed or copied by hand: never removed"),
    ]


def test_the_words_are_rules():
    """The seed arguments stand for rules."""
    assert rules_for("val_loss", "min", 3) == (Best(3, "val_loss"),)
    assert rules_for(None, "min", 1) == (Latest(1),)
    assert rules_for("val_loss", "max", -1) == (All(),)
    assert rules_for("val_loss", "max", 0) == (All(),)


def test_pinned_says_it_aloud():
    """``Pinned()`` keeps the pinned, as every list of rules does."""
    found = [Known("a", pinned=True), Known("b", sequence=1), Known("c", sequence=2)]
    assert kept(Pinned(), found) == kept([], found) == ["a", "c"]


def test_how_many_files_it_will_be():
    """The estimate adds what each rule keeps and the floor, under the budget; None where nothing bounds it."""
    ladder = Latest(3) | EverySteps(10_000)
    assert most_kept(rules_of(ladder), steps=100_000) == 14
    assert most_kept(rules_of(ladder)) is None
    assert most_kept(rules_of(ladder | Within("200GB")), size=14 * 10**9) == 14
    assert most_kept(rules_of(Best(2, "acc", mode="max")), monitor="val_loss", resumed=True) == 5
    assert most_kept(rules_of(Within("1GB")), size=10**10) == 1
    assert most_kept(rules_of([])) == 1
    assert most_kept(rules_of(Thin(hourly=24, daily=7, steps={1000: 5}))) == 37
    assert most_kept(rules_of(All()), saves=12) == 12


def test_the_best_of_every_ranking_is_of_the_floor():
    """A budget cannot take the best by the metric of a ``Best``, and ``Best(0, ...)`` keeps it."""
    found = [Known(str(place), sequence=place, size=10, metrics={"acc": -float(place)}) for place in range(5)]
    assert kept(Best(2, "acc", mode="max") | Latest(3) | Within(10), found) == ["0", "4"]
    assert kept(Best(0, "acc", mode="max"), found) == ["0", "4"]
    decision = (Best(2, "acc", mode="max") | Within(10)).plan(found, NOW)[1]
    assert (decision.keep, decision.rank) == (False, 2)
    assert decision.reason == "over the budget, and the oldest (2 of the 2 highest acc)"
