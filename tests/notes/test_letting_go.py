"""Pins against removals, and what becomes of the notes of checkpoints that go."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import fsspec
import pytest

import holdfast
from holdfast import CheckpointNotFoundError, notes
from holdfast.front.noting import forget_all_gone, forget_if_gone, let_go
from holdfast.records import Facts
from holdfast.storage import open_store
from tests.support.files import put, save

TIME = "2026-01-02T03:04:05.678+00:00"


def facts_of(name, sequence=1, **names):
    return Facts(run="r", sequence=sequence, time=TIME, names={"ranked": name, **names})


def made(store, name, sequence=1, **names):
    facts = facts_of(name, sequence, **names)
    save(store.path(name), run="r", sequence=sequence, time=TIME, names=facts.names)
    return facts


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    yield open_store(tmp_path if request.param == "local" else "memory://letting-go/run")
    fsspec.filesystem("memory").store.clear()


def test_a_pin_made_until_then_counts(store):
    """What is pinned is not removed, also if it was pinned after the decision; unpinned it is, with its notes."""
    facts = made(store, "deep/x.ckpt")
    checkpoint = holdfast.open(store.path("deep/x.ckpt")).tag("a").pin()
    assert not let_go(store, "deep/x.ckpt", facts, store.remove)
    assert store.exists("deep/x.ckpt")
    checkpoint.unpin()
    assert let_go(store, "deep/x.ckpt", facts, store.remove)
    assert notes.known(store, 9) == {}
    assert not store.is_local or os.listdir(store.root) == []


def test_a_change_that_cannot_be_read_keeps_the_checkpoint(store):
    """While something that was said of a checkpoint cannot be read, it is not removed."""
    facts = made(store, "x.ckpt")
    name = notes.write(store, "", notes.identity(facts), notes.Change(tag=("a",)))
    store.put(name, [store.read(name, 0, 999)[:-3]])
    assert not let_go(store, "x.ckpt", facts, store.remove)
    store.remove(name)
    assert let_go(store, "x.ckpt", facts, store.remove)


def test_the_notes_stay_with_the_other_name(store):
    """While another name of the save is there, what was said stays; when the last one goes, it goes."""
    facts = made(store, "x.ckpt", last="last.ckpt")
    store.link("x.ckpt", "last.ckpt")
    holdfast.open(store.path("x.ckpt")).tag("a")
    assert let_go(store, "x.ckpt", facts, store.remove)
    assert holdfast.open(store.path("last.ckpt")).tags == ("a",)
    assert let_go(store, "last.ckpt", facts, store.remove)
    assert store.hidden(notes.FOLDER) == []


def test_a_renamed_one_that_goes(store):
    """Of a file that was renamed nobody knows the other names: its notes are left to a look at the whole directory."""
    facts = made(store, "x.ckpt")
    holdfast.open(store.path("x.ckpt")).tag("a")
    store.put("other.ckpt", [store.read("x.ckpt", 0, 1 << 20)])
    store.remove("x.ckpt")
    store.remove("other.ckpt")
    forget_if_gone(store, "other.ckpt", facts)
    assert len(notes.known(store)) == 1
    assert forget_all_gone(store) == [notes.identity(facts)]
    assert notes.known(store) == {}


def test_what_a_dead_process_left_is_forgotten(store):
    """Notes of checkpoints that are gone go; those of living ones stay, and so do pins: the file may come back."""
    kept, gone, pinned = (made(store, f"{at}.ckpt", at) for at in (1, 2, 3))
    for at in (1, 2, 3):
        holdfast.open(store.path(f"{at}.ckpt")).tag("a")
    holdfast.open(store.path("3.ckpt")).pin()
    store.remove("2.ckpt")
    store.remove("3.ckpt")
    assert forget_all_gone(store, 9) == [notes.identity(gone)]
    assert set(notes.known(store)) == {notes.identity(kept), notes.identity(pinned)}


def test_a_file_that_was_put_into_a_folder_keeps_its_notes(store):
    """What people have moved further down still has what was said of it, also when others are forgotten."""
    made(store, "x.ckpt")
    holdfast.open(store.path("x.ckpt")).tag("a")
    store.put("deep/er/x.ckpt", [store.read("x.ckpt", 0, 1 << 20)])
    store.remove("x.ckpt")
    assert forget_all_gone(store) == []
    assert holdfast.catalog(store.root)[0].tags == ("a",)


@pytest.mark.parametrize("name", ["x.ckpt", "x.ckpt.damaged"])
def test_nothing_is_forgotten_beside_a_file_that_cannot_speak(tmp_path, name):
    """While a torn file lies there, or one that was set aside, it may be the one that the notes are of."""
    store = open_store(tmp_path)
    facts = made(store, "x.ckpt")
    holdfast.open(tmp_path / "x.ckpt").tag("a")
    os.remove(tmp_path / "x.ckpt")
    put(tmp_path / name, b"PK\x03\x04 and then no more")
    assert forget_all_gone(store) == []
    os.remove(tmp_path / name)
    assert forget_all_gone(store) == [notes.identity(facts)]


REMOVER = """
import sys
import time
from holdfast.front.noting import let_go
from holdfast.storage import open_store
from holdfast.scanning import look
store = open_store(sys.argv[1])
found = {item.name: item for item in (look(store, f"{at}.ckpt") for at in range(int(sys.argv[2])))}
print("ready", flush=True)
for name in map(str.strip, sys.stdin):
    print(let_go(store, name, found[name].facts, store.remove), flush=True)
"""


def test_a_pin_and_a_removal_at_the_same_time(tmp_path):
    """Two processes, one pins and one removes: each checkpoint is pinned and there, or gone and the pin was refused."""
    count = 100
    store = open_store(tmp_path)
    for at in range(count):
        made(store, f"{at}.ckpt", at)
    command = [sys.executable, "-c", REMOVER, str(tmp_path), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "ready\n"
        for at in range(count):
            checkpoint = holdfast.open(tmp_path / f"{at}.ckpt")
            other.stdin.write(f"{at}.ckpt\n")
            other.stdin.flush()
            time.sleep((at % 20) * 3e-5)  # now before the removal, now amid it
            pinned = _pins(checkpoint)
            removed = other.stdout.readline() == "True\n"
            assert pinned == (not removed) == os.path.exists(checkpoint.path)
        other.stdin.close()
    assert all(item.pinned for item in holdfast.catalog(tmp_path))
    assert len(notes.known(store)) == len(holdfast.catalog(tmp_path))


def _pins(checkpoint):
    try:
        checkpoint.pin()
    except CheckpointNotFoundError:
        return False
    return True
