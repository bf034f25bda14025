"""What a run knows of its checkpoints, as values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.ledger import Entry, Ledger
from tests.support.properties import examples

NAMES = st.sampled_from(("a", "b", "c"))
STEPS = st.tuples(st.sampled_from(("entry", "last", "without")), NAMES, st.none() | st.integers(0, 9).map(float))


@examples(200)
@given(st.lists(STEPS, max_size=12))
def test_a_ledger_is_what_a_directory_would_be(history):
    """After any sequence of commits and removals the entries are those of a plain dictionary of files."""
    ledger, files, last, score = Ledger(), {}, None, None
    for sequence, (what, name, value) in enumerate(history, 1):
        entry = Entry(name, value, sequence, 0, sequence)
        if what == "entry":
            ledger = ledger.with_entry(entry)
            files.pop(name, None)
            files[name] = entry
            score = value if value is not None else score
        elif what == "last":
            ledger = ledger.with_last(entry)
            last = entry
        else:
            ledger = ledger.without(name)
            files.pop(name, None)
            last = None if last is not None and last.name == name else last
    assert ledger.entries == tuple(files.values())
    assert (ledger.last, ledger.current_score) == (last, score)
    assert [ledger.named(name) for name in "abc"] == [files.get(name) for name in "abc"]


def test_commits_are_remembered_by_their_step():
    """A ranked commit notes its step and ends the wait; ``last`` notes its own; neither changes the other."""
    waiting = Ledger(deferred="every 2 steps")
    ranked = waiting.with_entry(Entry("a", 1.0, 6, 1, 1))
    assert (ranked.ranked_step, ranked.last_step, ranked.deferred) == (6, 0, "")
    last = waiting.with_last(Entry("last", 1.0, 7, 1, 2))
    assert (last.ranked_step, last.last_step, last.deferred) == (0, 7, "every 2 steps")
    assert waiting == Ledger(deferred="every 2 steps")


def test_what_was_not_removed_after_all_is_there_again():
    """A file that stays though it was dropped is in its place again, once: ranked, of a signal, or an old ``last``."""
    ranked, other, saved = (Entry(name, None, place, 0, place) for place, name in enumerate("abc", 1))
    before = Ledger(entries=(ranked, other), preempted=(saved,), last=Entry("last", None, 2, 0, 2))
    for name in "abc":
        assert before.without(name).with_again(name, before) == before
        assert before.with_again(name, before) == before
    assert before.without("last").with_again("last", before).old_lasts == ("last",)
