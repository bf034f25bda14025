"""What is said of a checkpoint: written, read, put together, forgotten."""

from __future__ import annotations

import os
import secrets

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import notes
from holdfast.format.notes import NoteError, decode_change, encode_change
from holdfast.records import Change, Facts, Note, Noted
from holdfast.storage import open_store
from tests.support.properties import examples

FACTS = Facts(run="r", owner="o", sequence=3, time="2026-01-02T03:04:05+00:00", step=7, names={"ranked": "x.ckpt"})
ID = notes.identity(FACTS)
OTHER = notes.identity(Facts(run="r", owner="o", sequence=4, time="2026-01-02T03:04:05+00:00", step=7))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TAGS = st.lists(st.sampled_from(("paper", "best one", "損", "v1.0")), max_size=3, unique=True).map(tuple)
CHANGES = st.builds(
    Change,
    pin=st.none() | st.booleans(),
    tag=TAGS,
    untag=TAGS,
    note=st.just("") | TEXT,
    metrics=st.dictionaries(TEXT, st.floats(), max_size=3),
    time=st.just("") | TEXT,
)


@pytest.fixture(autouse=True)
def _empty_memory():
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    if request.param == "local":
        return open_store(tmp_path / "run")
    return open_store(f"memory://notes-{secrets.token_hex(4)}/run")


def say(store, folder="", identity=ID, **change):
    return notes.write(store, folder, identity, Change(**change))


def rearranged(store, change, counter, random):
    """A change under a chosen name, as of another writer."""
    store.put(f"{notes.FOLDER}/{ID}/{counter:08d}-{random:016x}.json", [encode_change(change)])


@examples(200)
@given(CHANGES)
def test_a_change_is_read_as_it_was_written(change):
    """Whatever a change says, its bytes say the same, NaN and infinities included."""
    again = decode_change(encode_change(change))
    assert repr(again) == repr(change)


@examples(150)
@given(CHANGES, st.data())
def test_every_byte_of_a_change_is_checked(change, data):
    """A change in which a byte is another, or is missing, or is one too many, is refused."""
    whole = encode_change(change)
    at = data.draw(st.integers(0, len(whole) - 1))
    other = bytes([whole[at] ^ data.draw(st.integers(1, 255))])
    for wrong in (whole[:at] + other + whole[at + 1 :], whole[:at], whole[:at] + other + whole[at:]):
        with pytest.raises(NoteError):
            decode_change(wrong)


@pytest.mark.parametrize(
    "change",
    [
        Change(tag=("",)),
        Change(tag=(" a",)),
        Change(tag=("a,b",)),
        Change(tag=("a\x1b[2J",)),
        Change(tag=("a" * 201,)),
        Change(tag=(3,)),
        Change(note="\ud800"),
        Change(note="x" * 70_000),
        Change(metrics={"": 1.0}),
        Change(metrics={3: 1.0}),
        Change(metrics={f"{number:0200d}": 0.1 for number in range(6000)}),
    ],
    ids=lambda change: repr(change)[:40],
)
def test_what_cannot_be_noted(store, change):
    """A value that no reader would take is refused before anything is written."""
    with pytest.raises(NoteError):
        notes.write(store, "", ID, change)
    assert store.hidden(notes.FOLDER) == []


def test_nothing_said_is_nothing_there(store):
    """Where nobody has said anything there is nothing to read, and reading leaves no trace."""
    assert notes.read(store, 9) == {}
    assert notes.read_one(store, [""], ID) == Noted()
    assert notes.known(store, 9) == {}
    assert store.hidden(notes.FOLDER) == []


def test_changes_add_up_in_their_order(store):
    """Later changes come after earlier ones: the last word on pins, tags and metrics holds, notes are all kept."""
    say(store, pin=True, tag=("a", "b"), time="t1")
    say(store, pin=False, untag=("a",), note="one", time="t2", metrics={"acc": 0.5, "f1": 1.0})
    say(store, tag=("c", "a"), note="two", metrics={"acc": 0.75})
    expected = Noted(False, ("b", "c", "a"), (Note("one", "t2"), Note("two")), {"acc": 0.75, "f1": 1.0})
    assert notes.read(store) == {ID: expected}
    assert notes.read_one(store, [""], ID) == expected
    assert notes.read(store).of(OTHER) == Noted()


@examples(60)
@given(changes=st.lists(st.tuples(st.integers(1, 3), CHANGES), min_size=1, max_size=5), data=st.data())
def test_every_reader_puts_them_together_the_same(changes, data):
    """The order in which files are found changes nothing, and nobody's pin or tag is lost to one unaware of it."""
    placed = [(counter, str(at), change) for at, (counter, change) in enumerate(changes)]
    merged = notes._merge(placed, [])
    assert repr(merged) == repr(notes._merge(data.draw(st.permutations(placed)), []))
    newest = [change for counter, _, change in placed if counter == max(item[0] for item in placed)]
    assert merged.pinned or not any(change.pin for change in newest)
    assert {tag for change in newest for tag in change.tag} <= set(merged.tags)


def test_two_who_did_not_know_of_each_other(store):
    """Of a pin and an unpin at once the pin holds, and of a tag and its removal the tag; an unpin that knew unpins."""
    for swap in (1, -1):
        rearranged(store, Change(pin=True, tag=("a",)), 5, 50)
        rearranged(store, Change(pin=False, untag=("a",)), 5, 50 + swap)
        assert (notes.read(store)[ID].pinned, notes.read(store)[ID].tags) == (True, ("a",))
        say(store, pin=False, untag=("a",))
        assert notes.read(store)[ID] == Noted()
        notes.forget(store, "", ID)


def test_the_next_counter_is_above_all_that_were_seen(store):
    """A change comes after every change that its writer could see, also after one that cannot be read."""
    rearranged(store, Change(pin=True), 41, 9)
    store.put(f"{notes.FOLDER}/{ID}/00000077-{1:016x}.json", [b"garbage"])
    name = say(store, pin=False)
    assert name.startswith(f"{notes.FOLDER}/{ID}/00000078-")


def test_notes_of_several_folders_belong_together(store):
    """What is said beside one name of a save counts for its other name in another folder; deeper ones only if asked."""
    say(store, "", tag=("root",))
    say(store, "sub/", tag=("sub",))
    say(store, "sub/deep/", OTHER, pin=True)
    assert notes.read(store) == {ID: Noted(tags=("root",))}
    assert set(notes.read(store, 1)[ID].tags) == {"root", "sub"}
    assert notes.read(store, 2)[OTHER].pinned
    assert set(notes.read_one(store, ["", "sub/"], ID).tags) == {"root", "sub"}
    assert notes.known(store, 2) == {ID: ["", "sub/"], OTHER: ["sub/deep/"]}


def test_forgotten_leaves_no_trace(store):
    """When all is forgotten, no file and no folder of the notes is left; what is said of others stays until then."""
    for folder in ("", "sub/"):
        say(store, folder, tag=("a",))
        say(store, folder, OTHER, note="n")
        notes.forget(store, folder, ID)
        notes.forget(store, folder, ID)
        assert set(notes.read(store, 1)) == {OTHER}
        notes.forget(store, folder, OTHER)
    if store.is_local:
        assert os.listdir(store.root) == []
    assert notes.read(store, 9) == {}


def test_what_identifies_a_save():
    """Each of run, owner, sequence, time and step tells saves apart; names and metrics do not."""
    from dataclasses import replace

    changes = ({"run": "q"}, {"owner": ""}, {"sequence": 4}, {"time": "2027"}, {"step": 8}, {"run": "ro", "owner": ""})
    others = [replace(FACTS, **change) for change in changes]
    assert len({notes.identity(facts) for facts in (FACTS, *others)}) == len(others) + 1
    assert notes.identity(replace(FACTS, names={}, metrics={"a": 1.0}, reason="x")) == ID
    assert notes.identity(Facts(step=3)) == ""


@pytest.mark.parametrize(
    ("name", "names", "folders"),
    [
        ("x.ckpt", {"ranked": "x.ckpt"}, ("",)),
        ("sub/x.ckpt", {"ranked": "sub/x.ckpt", "last": "last.ckpt"}, ("sub/", "")),
        ("run/last.ckpt", {"ranked": "a/b/x.ckpt", "last": "last.ckpt"}, ("run/", "run/a/b/")),
        ("renamed.ckpt", {"ranked": "sub/x.ckpt"}, ("",)),
        ("x.ckpt", {"ranked": "x.ckpt", "last": "../../etc/x"}, ("",)),
        ("x.ckpt", {"ranked": "", "last": "x.ckpt"}, ("",)),
    ],
)
def test_where_notes_may_lie(name, names, folders):
    """A checkpoint's notes lie beside it or beside another name of its save, and nowhere above the run's directory."""
    assert notes.folders_of(name, Facts(names=names)) == folders
