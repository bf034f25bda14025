"""Listings that lag, or fail in their midst: nothing uncommitted is shown, nothing committed is removed for that."""

from __future__ import annotations

import secrets

import fsspec
import pytest
import torch

import holdfast
from holdfast import Checkpointer
from holdfast.storage import open_store
from holdfast.storage.remote import connect
from holdfast.storage.remote.objects import Listed
from tests.support.files import save


class Lagging:
    """Objects whose listings do not show some keys yet, still show some that are gone, or end in an error."""

    def __init__(self, objects, world):
        self._objects, self._world = objects, world

    def __getattr__(self, name):
        return getattr(self._objects, name)

    def list(self, prefix, *, deep=True):
        for count, item in enumerate(self._objects.list(prefix, deep=deep)):
            if self._world.fails_after is not None and count >= self._world.fails_after:
                raise ConnectionError("503 SlowDown")
            if not item.key.endswith(tuple(self._world.unseen)):
                yield self._world.old.get(item.key, item)
        for name in self._world.ghosts:
            yield Listed(1000, "x", None, f"{prefix}{name}")


class World:
    """What listings do wrong."""

    def __init__(self):
        self.unseen, self.ghosts, self.fails_after, self.old = [], [], None, {}


@pytest.fixture
def world():
    world = World()
    with connect.wrapping(lambda objects: Lagging(objects, world)):
        yield world


@pytest.fixture
def url():
    yield f"memory://{secrets.token_hex(4)}"
    fsspec.filesystem("memory").store.clear()


def run(url, **words):
    return Checkpointer(url, model=torch.nn.Linear(1, 1), every_n_train_steps=1, **words)


def names(url):
    return [blob.name for blob in open_store(url).blobs()]


def test_what_is_listed_and_gone(url, world):
    """A name that a listing still shows and that is gone is no checkpoint: not listed, not resumed from, no error."""
    with run(url) as ckpt:
        ckpt.step()
    world.ghosts = ["epoch=0-step=9.ckpt"]
    assert [item.name for item in holdfast.catalog(url)] == ["epoch=0-step=1.ckpt"]
    with run(url) as ckpt:
        assert ckpt.resume().step == 1
        ckpt.step()
    world.ghosts = []
    assert "epoch=0-step=2.ckpt" in names(url)


def test_what_is_committed_and_not_listed(url, world):
    """A run knows what it has committed, whatever listings show: retention keeps its newest, and removes the others."""
    with run(url, save_top_k=1) as ckpt:
        world.unseen = [".ckpt"]
        for step in range(1, 4):
            ckpt.step()
            ckpt.wait()
            assert open_store(url).exists(f"epoch=0-step={step}.ckpt")
    world.unseen = []
    assert names(url) == ["epoch=0-step=3.ckpt"]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_listing_that_fails_in_its_midst(url, world, after):
    """Half a listing is an error for those who ask, never a shorter list; nothing is removed for it."""
    with run(url, save_top_k=-1) as ckpt:
        for _ in range(3):
            ckpt.step()
    before = names(url)
    world.fails_after = after
    for ask in (names, holdfast.catalog, lambda url: holdfast.prune(url, "Latest(1)", dry_run=False)):
        with pytest.raises((OSError, holdfast.LoadError), match="503 SlowDown"):
            ask(url)
    with pytest.raises((OSError, holdfast.LoadError), match="503 SlowDown"):
        run(url, save_top_k=1)
    world.fails_after = None
    assert names(url) == before


def test_what_a_listing_does_not_show_is_read(world, url):
    """One checkpoint that was named is loaded, opened, verified and copied though no listing has it yet."""
    with run(url, save_top_k=-1) as ckpt:
        ckpt.step()
    path = f"{url}/epoch=0-step=1.ckpt"
    world.unseen = ["epoch=0-step=1.ckpt"]
    assert holdfast.load(path)["global_step"] == holdfast.open(path).step == 1
    assert holdfast.verify(path).facts.step == 1
    assert [item.whole for item in holdfast.verify_all(path)] == [True]
    assert holdfast.copy(path, f"{url}/copy.ckpt").copied == (f"{url}/copy.ckpt",)
    holdfast.open(path).pin()
    assert holdfast.open(path).pinned


@pytest.mark.parametrize("larger", [64, -64])
def test_what_a_listing_has_of_an_older_one_is_no_damage(world, url, larger):
    """Of a name that was written anew, and is listed as it was before, the new one is what is read, and it is whole."""
    store = open_store(url)
    for width in (128, 128 + larger):
        state = {"weight": torch.rand(width, 128), "global_step": width}
        save(f"{url}/last.ckpt", state)
        (item,) = store.objects.list(f"{store.base}/last.ckpt")
        world.old.setdefault(item.key, item)
    assert store.blobs()[0].size == world.old[item.key].size != store.size("last.ckpt")
    assert holdfast.load(f"{url}/last.ckpt")["global_step"] == 128 + larger
    assert holdfast.verify(f"{url}/last.ckpt") is not None
    assert [found.whole for found in (*holdfast.verify_all(url), *holdfast.verify_all(f"{url}/last.ckpt"))] == [
        True
    ] * 2
    holdfast.copy(f"{url}/last.ckpt", f"{url}/copy.ckpt")
    world.old.clear()
    assert holdfast.load(f"{url}/copy.ckpt")["global_step"] == 128 + larger
