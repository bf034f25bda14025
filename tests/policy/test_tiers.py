"""Which tier a run resumes from, over any two tiers: no mocks."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy import tiers
from holdfast.policy.terms import Known
from holdfast.records import LAST, PREEMPTED, RANKED, Facts
from holdfast.scanning import Found
from holdfast.scanning import newest_first as newest_first_of_one

_RUNS = {"a": 10, "b": 20}  # when each began


@st.composite
def saves(draw):
    """One save: its run, its place, and its names."""
    run = draw(st.sampled_from(sorted(_RUNS)))
    sequence = draw(st.integers(1, 6))
    last = draw(st.booleans())
    return run, sequence, last


@st.composite
def two_tiers(draw):
    """Copies in two tiers of saves of which either may have any."""
    made = draw(st.lists(saves(), unique=True, max_size=8))
    copies = []
    for run, sequence, last in made:
        homes = draw(st.sampled_from([(tiers.LOCAL,), (tiers.MIRROR,), (tiers.LOCAL, tiers.MIRROR)]))
        time = f"2026-01-01T00:{_RUNS[run] + sequence:02d}"
        name = f"last-{run}.ckpt" if last else f"{run}-{sequence}.ckpt"
        copies += [tiers.Copy(tier, name, run, sequence, time, last, f"{run} {sequence}") for tier in homes]
    return draw(st.permutations(copies))


@given(two_tiers())
def test_the_newest_save_comes_first_whatever_tier_has_it(copies):
    """The first to be tried is of the newest save of the newest run, and no copy is lost on the way."""
    order = tiers.newest_first(copies)
    assert sorted(order, key=repr) == sorted(copies, key=repr)
    ages = [(max(one.time for one in copies if one.run == copy.run), copy.sequence) for copy in order]
    assert ages == sorted(ages, reverse=True)


@given(two_tiers())
def test_the_near_copies_of_a_save_come_before_the_far_ones(copies):
    """A save that lies in the directory is not fetched unless every copy there has failed."""
    order = tiers.newest_first(copies)
    for place, copy in enumerate(order):
        if copy.tier == tiers.LOCAL:
            before = [one for one in order[:place] if one.identity == copy.identity]
            assert all(one.tier == tiers.LOCAL for one in before)


@given(two_tiers())
def test_one_tier_is_ordered_as_a_run_without_a_mirror_orders_it(copies):
    """Alone, the directory is gone through in the order in which it always was."""
    near = [copy for copy in copies if copy.tier == tiers.LOCAL]
    found = [
        Found(
            copy.name,
            copy.name,
            1,
            Facts(
                run=copy.run,
                sequence=copy.sequence,
                time=copy.time,
                names={LAST if copy.last else RANKED: copy.name},
            ),
        )
        for copy in near
    ]
    assert [copy.name for copy in tiers.newest_first(near)] == [item.name for item in newest_first_of_one(found)]


@given(two_tiers(), st.sets(st.sampled_from([f"a-{number}.ckpt" for number in range(1, 7)])))
def test_what_is_ranked_beyond_the_directory_has_a_free_name(copies, taken):
    """Only the mirror's copies are ranked by their place there, and none under a name that a file here has."""
    names = {copy.name for copy in copies if copy.tier == tiers.LOCAL} | taken
    beyond = tiers.only_there(copies, names)
    assert all(copy.tier == tiers.MIRROR and copy.name not in names for copy in beyond)
    far = {copy.name for copy in copies if copy.tier == tiers.MIRROR}
    assert {copy.name for copy in beyond} == far - names


@given(st.lists(st.sampled_from("abcdef"), unique=True), st.sampled_from(["", *"abcdef"]), st.sampled_from("abcdef"))
def test_a_slow_network_keeps_two_files_at_most(dropped, under_way, waiting):
    """Of what retention drops, no more than the file under way and the newest that waits stays, and those do."""
    spared = tiers.spared(dropped, under_way, waiting)
    assert set(spared) == set(dropped) & {under_way, waiting}
    assert len(spared) <= 2


def test_nothing_is_begun_afresh_unasked():
    """A run that found nothing begins at step 0 only if the mirror has answered."""
    assert tiers.may_begin_afresh(asked=True)
    assert not tiers.may_begin_afresh(asked=False)


@st.composite
def on_the_mirror(draw):
    """Checkpoints of all roles, of two runs."""
    roles = st.sampled_from([RANKED, LAST, PREEMPTED, "exception", None])
    made = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9), roles, st.booleans()), max_size=9))
    return [
        Known(f"{place}.ckpt", sequence=sequence, role=role, run=run, owner="me", pinned=pinned)
        for place, (run, sequence, role, pinned) in enumerate(made)
    ]


@given(on_the_mirror(), st.sets(st.integers(0, 8)))
def test_what_nobody_needs_on_the_mirror(there, resumed):
    """Of a run only an older ``last`` and an overtaken ``preempted`` go: never the newest, pinned or resumed from."""
    sources = {f"{place}.ckpt" for place in resumed}
    gone = tiers.overtaken(there, sources)
    for item in there:
        later = [one for one in there if one.run == item.run and one.sequence > item.sequence]
        outlived = {
            LAST: any(one.role == LAST for one in later),
            PREEMPTED: bool(later),
        }.get(item.role, False)
        assert (item.name in gone) == (outlived and not item.pinned and item.name not in sources)


@given(two_tiers(), st.data())
def test_a_later_branch_is_of_the_same_run_and_the_other_tier(copies, data):
    """What is told of as a branch was saved later, has come less far, and lies in the other tier; none is passed by."""
    moved = [replace(copy, time=f"2026-01-01T00:{data.draw(st.integers(10, 40))}") for copy in copies]
    for chosen in moved:
        later = tiers.later_branch(chosen, moved)
        branch = [one for one in moved if (one.run, one.tier == chosen.tier) == (chosen.run, False)]
        branch = [one for one in branch if one.time > chosen.time and one.sequence < chosen.sequence]
        assert (later is None) == (not branch)
        assert later is None or (later in branch and later.time == max(one.time for one in branch))
