"""What holds for every list of rules, however silly, and for every directory.

``HOLDFAST_EXAMPLES=200 pytest tests/policy/test_keeping_properties.py`` tries 20,000 of each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.errors import ConfigurationError
from holdfast.policy.budget import Within
from holdfast.policy.keeping import most_kept, plan, rules_of
from holdfast.policy.notation import parse_rules, show_rules
from holdfast.policy.rules import Latest
from holdfast.policy.terms import Known, any_of
from holdfast.policy.thinning import Thin
from tests.policy import oracle
from tests.policy.strategies import BUDGETS, KEEPING, METRICS, MODES, NOW, RANKED_ALONE, candidates, entries
from tests.support.properties import examples

EXAMPLES = 100
RULES = st.lists(KEEPING, max_size=4)
RULES_AND_BUDGETS = st.lists(KEEPING | BUDGETS, max_size=5)
MONITORS = st.sampled_from((None, *METRICS))
RESUMED = st.sets(st.sampled_from(("u1.ckpt", "a/v1.ckpt", "elsewhere.ckpt")))
ANY = {"monitor": MONITORS, "mode": MODES, "resumed_from": RESUMED}


def kept(rules, found, **words):
    """The names of what is kept."""
    return {decision.name for decision in plan(rules_of(rules), found, NOW, **words) if decision.keep}


def runs(found):
    """The ranked checkpoints of each run, by the words of the contract alone."""
    groups = defaultdict(list)
    for item in found:
        if item.role == "ranked":
            groups[item.run, item.owner, item.folder].append(item)
    return groups


def best_of(items, metric, mode):
    """The names of those that no other beats by a real score; of equals the one saved first."""
    real = [item for item in items if not math.isnan(item.metrics.get(metric, math.nan))]
    if not real:
        return set()
    top = (min if mode == "min" else max)(item.metrics[metric] for item in real)
    equal = [item for item in real if item.metrics[metric] == top]
    first = min(item.sequence for item in equal)
    return {item.name for item in equal if item.sequence == first}


def floor_of(found, rules, monitor, mode, resumed_from):
    """The names that no rule may drop, by the words of the law alone."""
    names = {item.name for item in found if item.role != "ranked" or item.pinned or item.name in resumed_from}
    rankings = {(monitor, mode)}
    for rule in rules:
        if type(rule).__name__ == "Best":
            rankings.add((rule.metric, rule.mode) if rule.metric is not None else (monitor, mode))
    for items in runs(found).values():
        newest = max(item.sequence for item in items)
        names |= {item.name for item in items if item.sequence == newest}
        for metric, best in rankings:
            names |= best_of(items, metric, best)
    return names


def bytes_of(items):
    """What files take, each once whatever its names."""
    sizes = defaultdict(int)
    for item in items:
        key = item.file_id or f"/{item.name}"
        sizes[key] = max(sizes[key], item.size)
    return sum(sizes.values())


@examples(EXAMPLES)
@given(candidates(), RULES_AND_BUDGETS, MONITORS, MODES, RESUMED)
def test_no_list_of_rules_drops_the_floor(found, rules, monitor, mode, resumed_from):
    """Whatever is asked for, of each run the newest, the best, the pinned and the one resumed from are kept."""
    floor = floor_of(found, rules, monitor, mode, resumed_from)
    assert floor <= kept(rules, found, monitor=monitor, mode=mode, resumed_from=resumed_from)
    if not rules:
        assert kept(rules, found, monitor=monitor, mode=mode, resumed_from=resumed_from) == floor


@examples(EXAMPLES)
@given(candidates(), RULES_AND_BUDGETS, st.fixed_dictionaries(ANY), st.randoms(use_true_random=False))
def test_no_order_matters(found, rules, words, dice):
    """The rules and the listing in any other order give the very same decisions, with the same reasons."""
    shuffled, others = list(found), list(rules)
    dice.shuffle(shuffled)
    dice.shuffle(others)
    first = sorted(map(repr, plan(rules_of(rules), found, NOW, **words)))
    assert sorted(map(repr, plan(rules_of(others), shuffled, NOW, **words))) == first


@examples(EXAMPLES)
@given(candidates(), RULES, KEEPING, st.fixed_dictionaries(ANY))
def test_adding_a_rule_drops_nothing(found, rules, more, words):
    """What some rules keep, they keep together with any other."""
    assert kept(rules, found, **words) <= kept([*rules, more], found, **words)


@examples(EXAMPLES)
@given(candidates(), RULES, RULES, st.fixed_dictionaries(ANY))
def test_two_lists_together_keep_what_either_keeps(found, rules, more, words):
    """Without budgets, rules are a plain union: none has a say in what another keeps."""
    union = kept(rules, found, **words) | kept(more, found, **words)
    assert kept([*rules, *more], found, **words) == union


@examples(EXAMPLES)
@given(candidates(), RULES_AND_BUDGETS, st.fixed_dictionaries(ANY))
def test_deciding_again_about_what_was_kept_keeps_it(found, rules, words):
    """Retention is done in one pass: asked again about what it kept, it drops nothing more, budgets included."""
    first = kept(rules, found, **words)
    assert kept(rules, [item for item in found if item.name in first], **words) == first


@examples(EXAMPLES)
@given(candidates(), RULES, st.fixed_dictionaries(ANY), st.lists(st.integers(0, 12), max_size=6))
def test_forgetting_as_one_goes_forgets_nothing_else(found, rules, words, cuts):
    """A run that removes after each save ends with what it would have kept of all, had it never removed any."""
    survivors = []
    borders = [0, *sorted(cuts), len(found)]
    for start, end in pairwise(borders):
        there = [*survivors, *found[start:end]]
        names = kept(rules, there, **words)
        survivors = [item for item in there if item.name in names]
    assert {item.name for item in survivors} == kept(rules, found, **words)


@examples(EXAMPLES)
@given(candidates(), RULES, st.lists(BUDGETS, min_size=1, max_size=2), st.fixed_dictionaries(ANY))
def test_a_budget_holds_where_the_floor_fits(found, rules, budgets, words):
    """In each run, what is kept fits every budget, or what takes the space may not go: the floor and its links."""
    keeping = rules or [Thin(hourly=-1)]
    names = kept([*keeping, *budgets], found, **words)
    floor = floor_of(found, keeping, **words)
    limit = min(budget.limit for budget in budgets)
    for run in {(item.run, item.owner, item.folder) for item in found}:
        mine = [item for item in found if (item.run, item.owner, item.folder) == run]
        total = bytes_of(item for item in mine if item.name in names)
        least = [item for item in mine if item.name in floor]
        links = {item.file_id for item in least} - {""}
        shared = [item for item in mine if item.name in names and item.file_id in links]
        assert total <= max(limit, bytes_of([*least, *shared]))


@examples(EXAMPLES)
@given(candidates(), RULES, BUDGETS, st.fixed_dictionaries(ANY))
def test_what_a_budget_takes_is_the_oldest(found, rules, budget, words):
    """A budget takes nothing that is newer than what it leaves, unless that is of the floor, shared or empty."""
    keeping = rules or [Thin(hourly=-1)]
    without, names = kept(keeping, found, **words), kept([*keeping, budget], found, **words)
    floor = floor_of(found, keeping, **words)
    assert names <= without
    for items in runs(found).values():
        taken = [item.sequence for item in items if item.name in without - names and not item.file_id]
        left = [item.sequence for item in items if item.name in names - floor and not item.file_id and item.size]
        assert not taken or not left or max(taken) <= min(left)


@examples(EXAMPLES)
@given(candidates(), RULES_AND_BUDGETS, st.fixed_dictionaries(ANY))
def test_every_checkpoint_gets_an_answer_with_a_reason(found, rules, words):
    """One decision for each, in the given order; each has a reason, and names rules exactly if it is kept."""
    decisions = plan(rules_of(rules), found, NOW, **words)
    assert [decision.name for decision in decisions] == [item.name for item in found]
    for decision in decisions:
        assert decision.reason
        assert bool(decision.rules) == decision.keep
        known = {str(rule) for rule in rules} | ({"All()"} if rules else set())
        assert all(name in known or name.startswith("floor: ") for name in decision.rules)


@examples(EXAMPLES)
@given(
    entries(unscored=True),
    st.sampled_from((None, "val_loss")),
    MODES,
    st.integers(-1, 6),
    st.sets(st.sampled_from(("0.ckpt", "3.ckpt", "elsewhere.ckpt"))),
)
def test_the_words_of_the_class_are_these_rules(found, monitor, mode, k, resumed_from):
    """``monitor``, ``mode`` and ``save_top_k`` decide as the rules that they stand for, to the last word."""
    assume(monitor is not None or k in (-1, 0, 1))
    words = {"monitor": monitor, "mode": mode, "resumed_from": resumed_from}
    expected = oracle.plan(found, save_top_k=k, **words)
    decided = oracle.plan_by_words(found, save_top_k=k, **words)
    assert [(item.name, item.keep, item.reason, item.rank) for item in decided] == [
        (item.name, item.keep, item.reason, item.rank) for item in expected
    ]


@examples(EXAMPLES)
@given(RULES_AND_BUDGETS)
def test_the_notation_is_read_back(rules):
    """The notation of any rules is read back as the same rules."""
    parts = rules_of(rules)
    assert set(parse_rules(show_rules(parts))) == set(parts)
    if rules:
        assert rules_of(any_of(rules)) == parts == parse_rules(str(any_of(rules)))
        assert parse_rules(str(list(parts))) == parts


@examples(EXAMPLES)
@given(st.text("Latest(Bs|3,'x\\\"=)[]{}:-~. \n\0ü") | st.text() | st.binary().map(repr))
def test_no_text_is_run_or_breaks_the_reader(text):
    """Any text whatever is read as rules or refused in our words."""
    said = ""
    try:
        rules = parse_rules(text)
    except ConfigurationError as error:
        said = str(error)
    else:
        assert parse_rules(show_rules(rules)) == rules
    assert said.isprintable()


@examples(EXAMPLES)
@given(candidates(kinds=RANKED_ALONE), st.integers(1, 3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_a_ladder_has_all_its_rungs(found, hours, blocks, dice):
    """Thinned save by save, whatever the clocks said: one for each of the last hours and blocks, no more."""
    found = [Known(f"{place}", step=item.step, sequence=place, time=item.time) for place, item in enumerate(found)]
    rule = Thin(hourly=hours, steps={10: blocks})
    survivors = []
    for item in found:
        there = [*survivors, item]
        dice.shuffle(there)
        names = kept([rule], there, monitor=None, mode="min")
        survivors = [item for item in there if item.name in names]
    expected = {item.name for item in found if item.time is None}
    for key, many in ((lambda item: item.time and item.time.timestamp() // 3600, hours), (_block, blocks)):
        newest = {key(item): item for item in found if key(item) is not None}
        expected |= {item.name for item in sorted(newest.values(), key=lambda item: item.sequence)[-many:]}
    assert {item.name for item in survivors} == expected | {item.name for item in found[-1:]}


def _block(item):
    return (item.step + 9) // 10


@examples(EXAMPLES)
@given(candidates(), st.fixed_dictionaries(ANY))
def test_a_budget_alone_keeps_what_fits(found, words):
    """A budget without a rule keeps all where all fits; adding a rule that keeps less then drops some."""
    everything = {item.name for item in found}
    assert kept([Within(10**6)], found, **words) == everything
    assert kept([Within(10**6), Latest(0)], found, **words) == floor_of(found, [], **words)


@examples(EXAMPLES)
@given(
    candidates(kinds=RANKED_ALONE),
    RULES_AND_BUDGETS,
    st.fixed_dictionaries({"monitor": MONITORS, "mode": MODES}),
    st.integers(1, 30),
    st.booleans(),
)
def test_never_more_than_the_estimate(found, rules, words, size, told):
    """A run of one size, without pins, keeps no more than was said before; with All and the like nothing was said."""
    found = [
        Known(item.name, item.step, item.epoch, place, item.metrics, item.time or NOW, size)
        for place, item in enumerate(found)
    ]
    facts = {"steps": 40, "epochs": 13, "saves": len(found)} if told else {}
    most = most_kept(rules_of(rules), size=size, **words, **facts)
    names = kept(rules, found, **words)
    assert most is None or len(names) <= most
    assert most is not None or not told
