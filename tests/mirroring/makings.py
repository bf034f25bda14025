"""Checkpoints as a run commits them, and what two stores have of them."""

from __future__ import annotations

import itertools

import torch

from holdfast import notes
from holdfast.engine import verify
from holdfast.engine.commit import write_checkpoint
from holdfast.records import Change, Facts
from holdfast.scanning import scan
from holdfast.storage import open_store

_counter = itertools.count(1)


def facts(run="run", sequence=None, names=None, **said):
    """What a save says of itself; each has a time of its own."""
    number = next(_counter) if sequence is None else sequence
    time = f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}.000+00:00"
    said = {"step": number, "sequence": number, "time": time} | said
    policy = {"monitor": None, "mode": "min", "save_top_k": -1}
    return Facts(run=run, owner="loop", names=names or {}, policy=policy, **said)


PART = 1 << 20  # bytes of a part, where a test wants several of them


class CutError(ConnectionError):
    """What a process that is killed sees: nothing."""


def save(store, name="x.ckpt", *, seed=0, size=100, role="ranked", **said):
    """Commit a checkpoint of about so many floats; return what it says of itself."""
    random = torch.Generator().manual_seed(seed)
    state = {"w": torch.rand(size, generator=random), "step": seed}
    said.setdefault("names", {role: name})
    known = facts(**said)
    write_checkpoint(store, name, state, known)
    return known


def link(store, source, target):
    """Give a checkpoint its second name, as a run does for ``last``."""
    store.link(source, target)


def pin(store, known, folder=""):
    """Pin a checkpoint."""
    notes.write(store, folder, notes.identity(known), Change(pin=True))


def content(store, depth=3):
    """The bytes of every blob, by name, and of the notes."""
    blobs = [*store.blobs(depth), *store.hidden(notes.FOLDER, depth)]
    return {blob.name: store.read(blob.name, 0, blob.size) for blob in blobs if not blob.bundle}


def all_whole(root):
    """Verify every checkpoint of a place; return their names."""
    store = open_store(root)
    names = [item.name for item in scan(store, depth=3)]
    for name in names:
        verify(store.path(name))
    return names


def unfinished(store):
    """The names of the notes of uploads that are to be gone on with."""
    return [blob.name for blob in store.hidden(".holdfast-mirror") if blob.name.endswith((".json", ".lock"))]
