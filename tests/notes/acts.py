"""What is killed in the tests: functions that say something of a checkpoint. No torch, so that a fork is quick."""

from __future__ import annotations

import holdfast
from holdfast import notes
from holdfast.front.noting import let_go
from holdfast.records import Facts
from holdfast.scanning import look
from holdfast.storage import open_store

NAME = "x.ckpt"


def tag_and_pin(tell, folder):
    """Tag, pin and score, each told when it is acknowledged."""
    checkpoint = holdfast.open(f"{folder}/{NAME}")
    checkpoint.tag("paper")
    tell("tagged")
    checkpoint.pin()
    tell("pinned")
    checkpoint.add_metrics({"acc": 0.5})
    tell("scored")


def unpin_and_let_go(tell, folder):
    """Unpin, and remove the checkpoint as retention does."""
    holdfast.open(f"{folder}/{NAME}").unpin()
    tell("unpinned")
    store = open_store(folder)
    facts = look(store, NAME).facts
    assert let_go(store, NAME, facts or Facts(), store.remove)
    tell("gone")


def tag_many(folder, mine, count):
    """Tag one checkpoint many times, as one of several processes."""
    checkpoint = holdfast.open(f"{folder}/{NAME}")
    for at in range(count):
        checkpoint.tag(f"{mine}-{at}")
    if mine == "forgetful":
        notes.read(open_store(folder))
