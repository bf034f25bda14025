"""A local disk that is full: while uploads hold files back, and while a checkpoint is fetched."""

from __future__ import annotations

import errno
import os
import threading

import pytest

import holdfast
from holdfast.storage import open_store
from holdfast.storage.contract import Free
from holdfast.storage.local import LocalStore
from holdfast.storage.remote.generic import FsspecObjects
from tests.front.loops import Loop
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit
from tests.support.running import everything


def _names(place):
    return [blob.name for blob in open_store(place).blobs()]


@pytest.fixture
def stuck(monkeypatch):
    """An upload that has begun and does not come to its end before it is told to; the events of both."""
    begun, going, put = threading.Event(), threading.Event(), FsspecObjects.put

    def slow(*given, **words):
        begun.set()
        assert going.wait(60)
        return put(*given, **words)

    monkeypatch.setattr(FsspecObjects, "put", slow)
    yield begun, going
    going.set()


@pytest.fixture
def room(monkeypatch):
    """A disk on which so many checkpoints find room; the number may be changed."""
    put, room = LocalStore.put, [99]

    def limited(self, name, chunks, **words):
        if name.endswith(".ckpt") and len(self.blobs()) >= room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(self, name, chunks, **words)

    monkeypatch.setattr(LocalStore, "put", limited)
    return room


def _epoch(loop, ckpt, epoch):
    for batch in loop.batches(epoch):
        loop.learn(batch)
        ckpt.step()
    ckpt.end_epoch()


@pytest.mark.filterwarnings("ignore:.*was not saved.*:UserWarning")
def test_the_mirror_gives_way(tmp_path, memory, stuck, room):
    """A save that finds no room costs the mirror what only it still needed here, and the next save has its place."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path / "run", mirror=memory, async_save=False)
    _epoch(loop, ckpt, 0)
    assert stuck[0].wait(60)
    _epoch(loop, ckpt, 1)
    assert _names(tmp_path / "run") == ["epoch=0-step=4.ckpt", "epoch=1-step=8.ckpt"]
    room[0] = 2
    _epoch(loop, ckpt, 2)
    assert _names(tmp_path / "run") == ["epoch=1-step=8.ckpt"]
    _epoch(loop, ckpt, 3)
    assert "epoch=3-step=16.ckpt" in _names(tmp_path / "run")
    stuck[1].set()
    ckpt.close()
    assert _names(tmp_path / "run") == _names(memory) == ["epoch=3-step=16.ckpt"]
    assert all(item.problem == "" for item in holdfast.verify_all(memory))


@pytest.mark.filterwarnings("ignore:.*was not saved.*:UserWarning")
def test_the_mirror_gives_way_under_lightning(tmp_path, memory, stuck, room):
    """Under Lightning likewise: after a save without room the next one has its place."""

    class Watched(Scripted):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                assert stuck[0].wait(60)
            room[0] = 2 if self.current_epoch >= 2 else 99

        def on_train_end(self):
            stuck[1].set()

    callback = ModelCheckpoint(tmp_path / "run", mirror=memory, async_save=False)
    fit(tmp_path, callback, model=Watched([1.0] * 4), max_epochs=4)
    assert _names(tmp_path / "run") == _names(memory)
    assert [name.partition("-")[0] for name in _names(memory)] == ["epoch=3"]


def test_no_room_for_a_download(tmp_path, memory, monkeypatch, room):
    """Without room for what is to be fetched the run does not begin, says so and leaves nothing; with room it does."""
    loop = Loop()
    with loop.checkpointer(tmp_path / "lost", mirror=memory) as ckpt:
        _epoch(loop, ckpt, 0)
    here, other = tmp_path / "here", Loop(seed=9)
    before = other.model.state_dict()["0.weight"].tolist()
    ckpt = other.checkpointer(here, mirror=memory)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "free", lambda self: Free(1000))
        with pytest.raises(holdfast.LoadError, match=r"has 1\.0 kB left"):
            ckpt.resume()
    room[0] = 0
    with pytest.raises(holdfast.LoadError, match="No space left on device"):
        ckpt.resume()
    assert other.model.state_dict()["0.weight"].tolist() == before
    assert everything(here) == []
    room[0] = 1
    start = ckpt.resume()
    ckpt.close()
    assert (start.step, start.tier) == (4, "mirror")
