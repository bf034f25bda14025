"""Notes made to hurt their reader, or only damaged: what cannot be read pins its checkpoint, and nothing breaks."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import HoldfastError, SaveError, notes
from holdfast.format.notes import NoteError, decode_change
from holdfast.front.noting import forget_all_gone
from holdfast.storage import open_store
from tests.format.test_hostile import DEEP, JSON, WRONG
from tests.support.files import save
from tests.support.properties import examples

FIELDS = ("holdfast", "pin", "tag", "untag", "note", "metrics", "time", "later")
FIRST = f"{1:08d}-{1:016x}.json"


def framed(text):
    """A change with a true checksum: of a value, or of JSON text as bytes."""
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    return b'{"crc32":"%08x","change":%s}\n' % (zlib.crc32(text), text)


@pytest.fixture
def home(tmp_path):
    """The folder of the notes of the one checkpoint there is."""
    save(tmp_path / "x.ckpt", run="r", sequence=1)
    (checkpoint,) = holdfast.catalog(tmp_path)
    folder = tmp_path / notes.FOLDER / notes.identity(checkpoint.facts)
    os.makedirs(folder)
    return folder


def use(folder):
    """Do all that reads notes; return the checkpoint as it is listed."""
    (checkpoint,) = holdfast.catalog(folder)
    alone = holdfast.open(checkpoint)
    assert (alone.pinned, alone.tags) == (checkpoint.pinned, checkpoint.tags)
    assert checkpoint.kept
    holdfast.catalog(folder).records()
    checkpoint._repr_html_()
    forget_all_gone(open_store(folder), 3)
    return checkpoint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"garbage",
        b"\0" * 200,
        framed(b""),
        framed(b"null"),
        framed(b"[]"),
        framed(b"NaN"),
        framed(b"1" * 10_000),
        framed(DEEP),
        framed(b'{"holdfast":1,"pin":true,"pin":false}'),
        framed({"pin": False}),
        framed({"holdfast": 2, "pin": False}),
        framed({"holdfast": True, "pin": False}),
        framed({"holdfast": 1, "tag": ["a\x1b[2J"]}),
        framed({"holdfast": 1, "tag": ["../../etc"], "metrics": []}),
        framed({"holdfast": 1, "metrics": {"a": "1e5"}}),
        framed({"holdfast": 1, "metrics": {"a": 10**400}}),
        framed({"holdfast": 1, "note": "\ud800"}),
        framed({"holdfast": 1})[:-1],
        framed({"holdfast": 1}) + b"\n",
        b"x" * (1 << 21),
    ],
    ids=lambda data: repr(data)[:40],
)
def test_what_cannot_be_read_pins(home, data):
    """A change that is damaged, of a later format, or of another form keeps its checkpoint, and is named."""
    folder = home.parent.parent
    (home / FIRST).write_bytes(data)
    checkpoint = use(folder)
    assert checkpoint.pinned
    assert FIRST in checkpoint.damaged_notes[0]
    assert "\x1b" not in checkpoint.damaged_notes[0]
    assert checkpoint.unpin().pinned
    os.remove(home / FIRST)
    assert not holdfast.open(checkpoint).pinned


@pytest.mark.parametrize("field", FIELDS)
def test_wrong_types(home, field):
    """Any field with a value of another type is refused, which pins, or harmless."""
    for value in WRONG:
        (home / FIRST).write_bytes(framed({"holdfast": 1, field: value}))
        use(home.parent.parent)


@examples(150)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_arbitrary_values(values):
    """Whatever values a change has, what is accepted has the types that it declares."""
    try:
        change = decode_change(framed({"holdfast": 1, **values}))
    except NoteError:
        return
    assert change.pin in (None, True, False)
    assert all(type(text) is str for text in (*change.tag, *change.untag, change.note, change.time, *change.metrics))
    assert all(type(number) is float for number in change.metrics.values())


@examples(150)
@given(st.binary(max_size=200))
def test_random_bytes(data):
    """Noise is no change, and no other error."""
    for noise in (data, framed(data)):
        with contextlib.suppress(NoteError):
            decode_change(noise)


def _link_out(path):
    outside = path.parents[2].parent / "outside"
    outside.mkdir(exist_ok=True)
    os.symlink(outside, path)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, _link_out], ids=["folder", "pipe", "link"])
def test_something_else_in_place_of_a_change(home, make):
    """A folder, a pipe or a link of a change's name is not read, followed or waited for: it pins."""
    make(home / FIRST)
    checkpoint = use(home.parent.parent)
    assert checkpoint.pinned
    assert "no file that can be read" in checkpoint.damaged_notes[0]
    assert checkpoint.tag("a").tags == ("a",)


@pytest.mark.parametrize("level", [notes.FOLDER, "identity"])
@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(b""), os.mkfifo, _link_out], ids=["file", "pipe", "link"]
)
def test_something_else_in_place_of_a_folder(home, level, make):
    """Where the folder of the notes is a file, a pipe or a link, all is pinned, and nothing is written outside."""
    folder = home.parent.parent
    os.rmdir(home)
    place = home
    if level != "identity":
        os.rmdir(home.parent)
        place = home.parent
    make(place)
    checkpoint = use(folder)
    assert checkpoint.pinned
    assert "no folder of its own" in checkpoint.damaged_notes[0]
    with pytest.raises(SaveError):
        checkpoint.tag("a")
    outside = folder.parent / "outside"
    assert not outside.exists() or os.listdir(outside) == []
    os.remove(place)
    assert holdfast.open(checkpoint).tag("a").tags == ("a",)


@pytest.mark.parametrize(
    "name",
    ["..", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + ".json", "\x1b[2J", "x"],
    ids=lambda name: repr(name)[:20],
)
def test_names_that_are_none_of_ours(home, name):
    """Files and folders of other names in the notes' folder are passed over."""
    folder = home.parent.parent
    os.makedirs(home.parent / "sub" / name, exist_ok=True)
    (home / f"{name}.json").write_bytes(b"none of ours")
    (home / f"{1:07d}-{1:016x}.json").write_bytes(b"too short a number")
    (home / f"٣{1:07d}-{1:016x}.json").write_bytes(b"a digit of another script")
    checkpoint = use(folder)
    assert (checkpoint.pinned, checkpoint.damaged_notes) == (False, ())
    assert checkpoint.tag("a").tags == ("a",)


def test_the_highest_number(home):
    """Where a change has the highest number that can be written, a further one is refused rather than put before it."""
    (home / f"{10**12 - 1}-{1:016x}.json").write_bytes(framed({"holdfast": 1, "tag": ["a"]}))
    checkpoint = use(home.parent.parent)
    assert checkpoint.tags == ("a",)
    with pytest.raises(SaveError, match="highest number"):
        checkpoint.tag("b")


def test_names_in_a_manifest_that_lead_out(tmp_path):
    """A manifest whose names have ``..`` or a root in them does not lead its notes out of the directory."""
    inner = tmp_path / "a" / "b"
    os.makedirs(inner)
    for names in (
        {"ranked": "x.ckpt", "last": "../../y"},
        {"ranked": "../b/x.ckpt"},
        {"ranked": "", "last": "/x.ckpt"},
    ):
        save(inner / "x.ckpt", names=names, run="r")
        with contextlib.suppress(HoldfastError):
            holdfast.open(inner / "x.ckpt").tag("a").pin()
        holdfast.catalog(tmp_path / "a")[0].tag("b")
        assert set(os.listdir(tmp_path)) == {"a"}
        assert os.listdir(tmp_path / "a") == ["b"]


def test_many_large_changes_take_little_memory(home):
    """Changes that claim gigabytes are refused by their size alone."""
    for at in range(20):
        with open(home / f"{at:08d}-{at:016x}.json", "wb") as file:
            file.truncate(1 << 32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(use(home.parent.parent).damaged_notes) == 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes
