"""Trainings whose writes are recorded: what each of them does to its folder, and what it has promised by when.

A scenario says in marks what from then on must hold. ``watch`` has the store itself say what it begins,
has committed and drops; ``train`` says which files the checkpointer names when ``wait()`` has returned.
"""

from __future__ import annotations

import hashlib
import json
import os

import torch

from holdfast import Checkpointer
from holdfast.storage import blocks
from holdfast.storage.local import LocalStore
from holdfast.testing.power import mark
from tests.crash import power_mutants as mutants
from tests.crash.training import batches, digest, learn, loss_at, parts

RUN = "runs/line"  # two folders that are made by the first save
BEST = {"every_n_train_steps": 1, "monitor": "loss", "save_top_k": 2, "filename": "{step}"}
SCENARIOS = {
    "first save": [{"words": {**BEST, "save_last": True}, "steps": 1}],
    "eviction": [{"words": BEST, "steps": 5}],
    "last": [{"words": {**BEST, "save_top_k": 1, "save_last": True}, "steps": 6}],
    "copies": [{"words": {**BEST, "save_last": True}, "steps": 3}],
    "last of its own": [{"words": {"save_top_k": 0, "save_last": True, "every_n_train_steps": 1}, "steps": 3}],
    "not waited for": [{"words": {**BEST, "save_last": True}, "steps": 5, "waits": 0}],
    "waiting": [{"words": {**BEST, "save_last": True, "async_save": False}, "steps": 5}],
    "recycled": [{"words": {**BEST, "recycle_blocks": True, "filename": "{epoch}/{step}"}, "steps": 7}],
    "two images": [{"words": {**BEST, "save_last": True, "images": 2, "overlap": True}, "steps": 5, "waits": 3}],
    "folders": [{"words": {**BEST, "save_top_k": 1, "filename": "{epoch}/{step}/a", "async_save": False}, "steps": 5}],
    "several": [
        {
            "words": {**BEST, "save_top_k": 1, "save_last": True},
            "beside": {"every_n_train_steps": 2, "save_top_k": -1, "filename": "every/{step}"},
            "steps": 4,
        }
    ],
    "resumed": [
        {"words": {**BEST, "save_last": True}, "steps": 4, "waits": 3},
        {"words": {**BEST, "save_last": True}, "steps": 2},
    ],
    "many dropped": [
        {"words": {**BEST, "save_top_k": 6}, "steps": 6},
        {"words": {**BEST, "save_top_k": 1}, "steps": 2},
    ],
    "everything": [
        {
            "words": {**BEST, "save_last": True, "images": 2, "overlap": True, "recycle_blocks": True},
            "steps": 4,
            "wide": 1024,
        }
    ],
}
BLOCK = 1 << 14  # so that even a small file is written in several pieces, by several threads


def opened(folder, words, beside=None, wide=8):
    """A training and its checkpointers, as they are at its beginning."""
    model, optimizer, schedule = parts(wide)
    words = [words] if beside is None else [words, beside]
    of = {"model": model, "optimizer": optimizer, "lr_scheduler": schedule}
    return model, optimizer, schedule, [Checkpointer(os.path.join(folder, RUN), **of, **one) for one in words]


def scenario(folder, name, fault=None, site=None):
    """Run one, as the child that is recorded; with a fault, as a saver that is known to be wrong."""
    torch.set_num_threads(1)
    blocks.BLOCK = blocks._BOUNCE = BLOCK
    if name == "copies":
        mutants.no_hard_links()
    if fault is not None:
        fault(*([site] if site else []))
    watch()
    for part in SCENARIOS[name]:
        train(folder, **part)


def train(folder, words, *, steps, beside=None, waits=1, wide=8):
    """Take some steps with a save after each; every ``waits``-th time wait for it. At the end all are waited for."""
    model, optimizer, schedule, several = opened(folder, words, beside, wide)
    starts = [ckpt.resume() for ckpt in several]
    ahead = starts[0].step
    for number in range(ahead + 1, ahead + steps + 1):
        learn(model, optimizer, schedule, batches(0)[number % 4])
        say(step=number, weights=digest(model))
        for ckpt in several:
            ckpt.step({"loss": loss_at(number)})
        if waits and number % waits == 0:
            for ckpt in several:
                ckpt.wait()
            say(acknowledged=acknowledged(several))
    for ckpt in several:
        ckpt.close()
    say(acknowledged=acknowledged(several))


def acknowledged(several):
    """The names that the checkpointers give for their best ones and the last."""
    paths = {path for ckpt in several for path in (*ckpt.best_k_models, ckpt.best_model_path, ckpt.last_model_path)}
    return sorted(os.path.relpath(path, several[0].dirpath) for path in paths if path)


def say(**what):
    mark(json.dumps(what))


def watch():
    """Have the store say what it is about to do to a name, and what it has done."""
    put, link, retire, remove = LocalStore.put, LocalStore.link, LocalStore.retire, LocalStore.remove

    def saying_put(store, name, chunks, *, over="", gate=None, size=0):
        seen = hashlib.sha256()

        def passing():
            for chunk in chunks:
                seen.update(chunk)
                yield chunk

        def before_the_commit():
            if gate is not None:
                gate()
            say(due=name, digest=seen.hexdigest())

        say(begun=name)
        written = put(store, name, passing(), over=over, gate=before_the_commit)
        say(committed=name)
        return written

    def saying_link(store, source, target):
        say(begun=target)
        say(due=target, digest=of_file(store.path(source)))
        how = link(store, source, target)
        say(committed=target)
        return how

    def saying_retire(store, name):
        say(dropped=name)
        return retire(store, name)

    def saying_remove(store, name):
        say(dropped=name)
        remove(store, name)
        if not os.path.basename(name).startswith("."):
            say(removed=[part for part in _up(name) if not os.path.lexists(store.path(part))])

    LocalStore.put, LocalStore.link = saying_put, saying_link
    LocalStore.retire, LocalStore.remove = saying_retire, saying_remove


def _up(name):
    """A name and the folders above it."""
    while name:
        yield name
        name = os.path.dirname(name)


def of_file(path):
    """A name for a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
