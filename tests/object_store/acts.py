"""What is done to an object store while it fails: each act, what is there before it, and what must hold after it."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

import holdfast
from holdfast.dcp import StorageReader, StorageWriter
from holdfast.errors import SaveError
from holdfast.storage.remote.claims import check_commit, give_up_all_claims
from tests.front.loops import Loop

SCORES = [5.0, 2.0, 4.0, 3.0]
WORDS = {"monitor": "val_loss", "save_top_k": 1, "save_last": True, "deadline": None}
EPOCHS = 3  # that an act has; the fourth is for what a removal that failed leaves until the next commit
STEPS = 4  # an epoch's
KNOWN = (holdfast.HoldfastError, OSError, CheckpointException)  # what may be raised where a store fails


@dataclass
class Place:
    """Where an act takes place: a URL, and a folder of this machine."""

    url: str
    folder: str


@dataclass
class Told:
    """What somebody was told: the steps that are committed, the errors, what came of it; by listings that lag?"""

    steps: list[int] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    result: Any = None
    stale: bool = False


@dataclass(frozen=True)
class Act:
    """``before`` makes what is there; ``do`` returns what came of it; ``after`` looks at what is there then.

    ``parts``: whether all but the smallest objects go in parts.
    """

    name: str
    before: Callable[[Place], Any]
    do: Callable[[Place, Told], Any]
    after: Callable[[Place, Told], Any]
    parts: bool = False


def train(where, told, epochs=EPOCHS, *, seed=3, resume=True, on_error="raise", **words):
    """Train on; take down what was told to be committed. Failing saves do not end it."""
    loop = Loop(seed)
    ckpt = loop.checkpointer(where, on_error=on_error, max_failures=100, **{**WORDS, **words})
    start = ckpt.resume() if resume else holdfast.Start()
    for epoch in range(start.epoch, epochs):
        for batch in start.remaining(loop.batches(epoch), epoch):
            loop.learn(batch)
            ckpt.step()
        try:
            ckpt.end_epoch({"val_loss": SCORES[epoch]})
            ckpt.wait()
            told.steps += [ckpt.global_step] if on_error == "raise" else []
        except SaveError as error:
            told.errors.append(error)
    try:
        ckpt.close()
    except SaveError as error:
        told.errors.append(error)
    return start.step, loop.state()


_whole = []


def expected():
    """How an uninterrupted run ends."""
    if not _whole:
        loop = Loop()
        with tempfile.TemporaryDirectory() as folder:
            loop.run(loop.checkpointer(folder, **WORDS), EPOCHS, scores=SCORES)
        _whole.append(loop.state())
    return _whole[0]


def begun(place):
    """A run of two epochs was there, whose first checkpoint is pinned."""
    train(place.url, Told(), 1, resume=False)
    holdfast.open(f"{place.url}/epoch=0-step=4.ckpt").pin()
    train(place.url, Told(), 2)


def nothing(place):
    """Nothing was there."""


def all_whole(url, at_least):
    """What is listed is whole, and goes at least so far; return the steps."""
    try:
        listed = list(holdfast.catalog(url))
    except holdfast.CheckpointNotFoundError:
        listed = []
    for item in listed:
        assert not item.problem, (item.path, item.problem)
        facts = holdfast.verify(item.path).facts
        assert facts.step == item.step == holdfast.load(item.path)["global_step"]
    steps = {item.step for item in listed}
    assert max(steps, default=0) >= at_least, (steps, at_least)
    return steps


def goes_on(place, told, at_least=0, **words):
    """The checkpoints are whole, and a next run goes on from the newest, ends as if nothing had been, and tidies up."""
    at_least = max([at_least, *told.steps])
    there = all_whole(place.url, at_least)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begun_at, state = train(place.url, Told(), seed=9 if there else 3, **words)
    assert begun_at >= at_least
    assert state == expected()
    give_up_all_claims()
    assert 12 in all_whole(place.url, 12)
    swept(holdfast.storage.open_store(place.url))


def swept(store):
    """What died is gone after the next sweeps: a server that counts whole seconds has it die later than it did."""
    until = time.monotonic() + 10
    while True:
        store.claim("", "2026-01-01T00:00:00+00:00")
        store.sweep(3)
        give_up_all_claims()
        left = store.leftovers(3)
        if not left or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert left == []


def trained(place, told):
    """However the saves went, training went on; of what was told nothing is lost."""
    if told.result is not None:
        assert told.result[1] == expected()
    goes_on(place, told)


def trained_on(place, told):
    """The same, of a run that went on from one that was there."""
    if told.result is not None and told.result[0]:
        assert told.result[1] == expected()
    goes_on(place, told, 8)
    assert holdfast.open(f"{place.url}/epoch=0-step=4.ckpt").pinned


def still_there(place, told):
    """What looks, or copies, changes nothing."""
    assert all_whole(place.url, 8) >= {4, 8}
    goes_on(place, told, 8)


def facts(place):
    return sorted((item.name, item.step, item.pinned, item.tags) for item in holdfast.catalog(place.url))


def loaded(place, told):
    return holdfast.load(f"{place.url}/last.ckpt")["global_step"]


def verified(place, told):
    return [item.problem for item in holdfast.verify_all(place.url)]


def pruned(place, told):
    found = holdfast.prune(place.url, "Latest(1)", dry_run=False)
    return sorted((item.name, item.keep) for item in found)


def noted(place, told):
    holdfast.open(f"{place.url}/last.ckpt").tag("good")


def is_noted(place, told):
    """What was noted, if that was said to be done, is; and what had been is."""
    found = {name: (pinned, tags) for name, _, pinned, tags in facts(place)}
    assert found["epoch=0-step=4.ckpt"][0]
    assert told.errors or found["last.ckpt"][1] == ("good",), found
    goes_on(place, told, 8)


def copied_there(place, told):
    done = holdfast.copy(f"{place.url}/last.ckpt", f"{place.url}/kept/x.ckpt")
    return len(done.copied), [reason for _, reason in done.problems]


def copied_here(place, told):
    done = holdfast.copy(f"{place.url}/last.ckpt", os.path.join(place.folder, "x.ckpt"))
    return len(done.copied), [reason for _, reason in done.problems]


def is_copied(place, told):
    """A copy is whole or not there."""
    for path in (f"{place.url}/kept/x.ckpt", os.path.join(place.folder, "x.ckpt")):
        root, name = os.path.split(path)
        if holdfast.storage.open_store(root).exists(name):
            assert holdfast.verify(path).facts.step == 8
    still_there(place, told)


def here(place):
    """A run of two epochs was on this machine."""
    train(place.folder, Told(), 2, resume=False)


def synced(place, told):
    done = holdfast.sync(place.folder, place.url)
    assert done.problems == () or told is not None
    if done.problems:
        raise OSError(done.problems)
    return sorted(done.copied)


def is_synced(place, told):
    """The source is as it was; the target has what was said, and the next sync brings the rest."""
    assert all_whole(place.folder, 8) == {8}
    all_whole(place.url, 0)
    done = holdfast.sync(place.folder, place.url)
    assert done.problems == ()
    assert all_whole(place.url, 8) == {8}
    goes_on(place, told, 8)


def mirrored(place, told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(place.folder, told, resume=False, mirror=place.url, mirror_wait=0.3)


def both_have(place, steps, told):
    """Both tiers have the same, if need be after a further commit, as what could not be removed waits for that.

    After a listing that was stale one may have more, and none has less than it needs.
    """
    there, here = all_whole(place.url, 12), all_whole(place.folder, 12)
    assert there >= steps, there
    if there != here and not told.stale:
        train(place.folder, Told(), EPOCHS + 1, seed=9, mirror=place.url, mirror_wait=20)
        give_up_all_claims()
        steps = {8, 16}
        there, here = all_whole(place.url, 16), all_whole(place.folder, 16)
    assert told.stale or there == here == steps, (there, here)


def is_mirrored(place, told):
    """The tier of this machine is as if there were no other; what is on that is whole; the next run brings the rest."""
    assert told.result is not None or not told.steps
    if told.result is not None:
        assert told.result[1] == expected()
        assert not [error for error in told.errors if isinstance(error, SaveError)]
        assert all_whole(place.folder, 12) == {8, 12}
    all_whole(place.url, 0)
    _, state = train(place.folder, Told(), seed=9, mirror=place.url, mirror_wait=20)
    assert state == expected()
    give_up_all_claims()
    both_have(place, {8, 12}, told)
    swept(holdfast.storage.open_store(place.url))


def on_the_mirror(place):
    """A run of two epochs is on the mirror, and no longer on this machine."""
    folder = place.folder + "-gone"
    train(folder, Told(), 2, resume=False, mirror=place.url)


def fetched(place, told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(place.folder, told, seed=9, mirror=place.url, mirror_wait=0.3)


def is_fetched(place, told):
    """A run never begins afresh where something is listed; what came over is whole, and what was there is."""
    if told.result is not None:
        if told.result[0] == 0 and told.stale:  # the listing was that of a time when nothing was there
            all_whole(place.folder, 12)
            all_whole(place.url, 8)
            return
        assert told.result[0] == 8, "began afresh, though the mirror has a checkpoint"
        assert told.result[1] == expected()
    if os.path.isdir(place.folder):
        all_whole(place.folder, 0)
    all_whole(place.url, 8)
    _, state = train(place.folder, Told(), seed=9, mirror=place.url, mirror_wait=20)
    assert state == expected()
    give_up_all_claims()
    both_have(place, {8, 12}, told)


def _shards(url, value, step):
    state = {"w": torch.full((2000,), value), "n": int(value)}
    dcp.save(state, storage_writer=StorageWriter(f"{url}/x.ckpt", step=step), no_dist=True)
    holdfast.storage.open_store(url).link("x.ckpt", "last.ckpt")


def _sharded(url):
    into = {"w": torch.zeros(2000), "n": 0}
    dcp.load(into, storage_reader=StorageReader(f"{url}/x.ckpt"), no_dist=True)
    assert set(into["w"].tolist()) == {float(into["n"])}
    return into["n"]


def sharded_before(place):
    _shards(place.url, 1.0, 1)


def sharded_again(place, told):
    _shards(place.url, 2.0, 2)
    return 2


def is_sharded(place, told):
    """The bundle is the old one or the new one, never a mixture; the new one if that was said."""
    value = _sharded(place.url)
    assert value in (1, 2)
    assert told.errors or value == 2
    if any("is untouched" in str(error) for error in told.errors):
        assert value == 1, "it was said not to be saved, and is"
    assert all_whole_shards(place.url) in ({value}, {1, value})
    _shards(place.url, 3.0, 3)
    assert _sharded(place.url) == 3
    assert all_whole_shards(place.url) == {3}


def all_whole_shards(url):
    for item in holdfast.catalog(url):
        assert not item.problem
        holdfast.verify(item.path)
    return {item.step for item in holdfast.catalog(url)}


def renewed(place, told):
    """A run that slept for long looks at its claim before it commits."""
    from holdfast.storage.remote import claims

    store = holdfast.storage.open_store(place.url)
    store.claim("r", "2026-01-01T00:00:00+00:00")
    for held in claims._held.values():
        held.renewed -= 50
    check_commit(f"{store.base}/")
    store.put("x.bin", (b"x",))


def still_mine(place, told):
    """Nobody else was there, so it was not lost."""
    assert not any(isinstance(error, holdfast.DirectoryInUseError) for error in told.errors), told.errors
    goes_on(place, told, 8)


ACTS = [
    Act("train", nothing, lambda place, told: train(place.url, told), trained),
    Act("train in parts", nothing, lambda place, told: train(place.url, told), trained, parts=True),
    Act("resume", begun, lambda place, told: train(place.url, told, seed=9), trained_on),
    Act("resume in parts", begun, lambda place, told: train(place.url, told, seed=9), trained_on, parts=True),
    Act("load", begun, loaded, still_there),
    Act("verify", begun, verified, still_there),
    Act("catalog", begun, lambda place, told: facts(place), still_there),
    Act("newest", begun, lambda place, told: os.path.basename(holdfast.newest(place.url) or ""), still_there),
    Act("prune", begun, pruned, lambda place, told: goes_on(place, told, 8)),
    Act("tag", begun, noted, is_noted),
    Act("copy there", begun, copied_there, is_copied, parts=True),
    Act("copy here", begun, copied_here, is_copied),
    Act("sync", here, synced, is_synced),
    Act("sync in parts", here, synced, is_synced, parts=True),
    Act("mirror", nothing, mirrored, is_mirrored),
    Act("mirror in parts", nothing, mirrored, is_mirrored, parts=True),
    Act("fetch", on_the_mirror, fetched, is_fetched),
    Act("shards", sharded_before, sharded_again, is_sharded),
    Act("claim", begun, renewed, still_mine),
]
