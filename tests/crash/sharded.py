"""Sharded saves of one process, as it does what all ranks do together; what must hold of the folder at any moment."""

from __future__ import annotations

import json
import os
import sys
from unittest import mock

import holdfast
from holdfast import scanning
from holdfast.storage import bundles, open_store
from holdfast.testing.power import mark
from tests.support.shards import save_sharded, state

SAVES = 3
RANKS = 2


def saves(folder, tell, first=1, no_exchange=False):
    """Save, give each the name ``last.ckpt`` as well, and drop the one before it; tell what has been promised."""
    with mock.patch.object(bundles, "_exchange", (lambda one, other: False) if no_exchange else bundles._exchange):
        _save_some(folder, tell, first)


def _save_some(folder, tell, first):
    store = open_store(folder)
    store.sweep()
    for number in range(first, first + SAVES):
        name = f"{number}.ckpt"
        save_sharded(os.path.join(folder, name), state(seed=number), RANKS, sequence=number, step=number)
        tell({"committed": number})
        store.link(name, "last.ckpt")
        tell({"last": number})
        if number > first:
            tell({"dropped": number - 1})
            store.remove(f"{number - 1}.ckpt")
            tell({"removed": number - 1})


def assert_kept(folder, said, *, no_exchange=False):
    """Look at what is there, sweep as the next run does, look again, and go on; return how many were listed."""
    promised = {key: {one[key] for one in said if key in one} for key in ("committed", "dropped", "removed")}
    last = max((one["last"] for one in said if "last" in one), default=0)
    store = open_store(folder)
    for swept in (False, True):
        if swept:
            store.sweep()
            assert [name for name in os.listdir(folder) if name.startswith(".")] == []
        steps = _whole(store)
        must = {f"{number}.ckpt" for number in promised["committed"] - promised["dropped"]}
        assert must <= set(steps), f"{must - set(steps)}, which was committed, is lost"
        back = {f"{number}.ckpt" for number in promised["removed"]} & set(steps)
        assert not back, f"{back} was removed, and is there again"
        if last and (swept or not no_exchange):
            assert steps.get("last.ckpt", 0) >= last, f"last is {steps.get('last.ckpt')} and was {last}"
    saves(folder, lambda _: None, first=9, no_exchange=no_exchange)
    assert _whole(store)["last.ckpt"] == 8 + SAVES
    return len(steps)


def _whole(store):
    """The step of each that is listed, by name; each has to be whole, and the one that its name says."""
    steps = {}
    for item in scanning.scan(store):
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
        assert item.name in (f"{item.facts.step}.ckpt", "last.ckpt")
        steps[item.name] = item.facts.step
    return steps


def train(tell, folder, no_exchange):
    """The saves, for those that kill them at system calls."""
    saves(folder, tell, no_exchange=no_exchange)


def warm():
    """What is only imported at the first save."""
    state()


def scenario(folder, no_exchange=False, left_out=""):
    """The saves, for those that record them; without the syncs of one function: a saver that is known to be wrong."""
    if left_out:
        real = bundles.sync_folder

        def sync_folder(path):
            if sys._getframe(1).f_code.co_name != left_out:
                real(path)

        bundles.sync_folder = sync_folder
    saves(os.path.join(folder, "run"), lambda what: mark(json.dumps(what)), no_exchange=no_exchange)
