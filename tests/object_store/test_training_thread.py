"""What a save to a URL asks of the server on the thread that trains, and what becomes of the rest behind it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import warnings
from collections import Counter

import pytest
import torch

from holdfast import Checkpointer, catalog
from holdfast import open as open_checkpoint
from holdfast.front.leaving import Leaving, Removal
from holdfast.front.planning import Run
from holdfast.lightning import ModelCheckpoint
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.settings import make_settings
from holdfast.storage import open_store
from holdfast.storage.remote import connect
from holdfast.testing.objects import _Wrapped
from tests.support.lightning_models import Scripted, loader, trainer

WORDS = {"every_n_train_steps": 2, "save_top_k": 2, "monitor": "loss", "save_last": True}
REMOVER = "holdfast-removal"


class Threads(_Wrapped):
    """Takes note of the thread of each request; ``before`` is called ahead of those of removals."""

    def __init__(self, objects, seen, before):
        super().__init__(objects)
        self.seen, self.before = seen, before

    def _call(self, kind, key, go, data=b"", **what):
        name = threading.current_thread().name
        self.seen.append((name, kind))
        if name == REMOVER:
            self.before(kind)
        return go() if data == b"" else go(data)


@contextlib.contextmanager
def watched(before=lambda kind: None):
    """Yield the requests of all stores that are opened inside, each with the name of its thread."""
    seen = []
    with connect.wrapping(lambda objects: Threads(objects, seen, before)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield seen


def trained(seen):
    """Return how many requests of each kind were made on the thread that trains."""
    return Counter(kind for name, kind in seen if name == threading.main_thread().name)


def settle(ckpt):
    """Wait, without asking for anything, until what is on its way is over."""
    for flight in list(ckpt._flights):
        flight.wait()
    for leaving in list(ckpt._leaving):
        leaving.look(wait=True)


@pytest.fixture(params=["memory", "s3"])
def url(request):
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket/{secrets.token_hex(4)}"
    return f"memory://{secrets.token_hex(4)}"


def test_a_loop_waits_for_three_requests(url):
    """A save that pushes another out looks for a free name and late metrics, and for nothing after its commit."""
    with watched() as seen, Checkpointer(url, model=torch.nn.Linear(2, 1), **WORDS) as ckpt:
        for step in range(1, 13):
            seen.clear()
            ckpt.step({"loss": -float(step)})
            settle(ckpt)
            asked = trained(seen)
            if step % 2:
                assert not asked
            elif step > 4:
                assert asked == {"list": 1, "head": 2}
        gone = {f"epoch=0-step={step}.ckpt" for step in (2, 4, 6, 8)}
    assert not gone & {item.name for item in catalog(url)}


def test_lightning_waits_for_three_requests(tmp_path):
    """The same under Lightning: before the save three, after it none."""
    url, counts = f"memory://{secrets.token_hex(4)}", []

    class Counting(ModelCheckpoint):
        def on_train_batch_end(self, *args, **kwargs):
            seen.clear()
            super().on_train_batch_end(*args, **kwargs)
            counts.append(trained(seen))
            for pending in self._pending:
                pending.flight.wait()
            for leaving in list(self._leaving):
                leaving.look(wait=True)

    with watched() as seen:
        ckpt = Counting(url, monitor="train_loss", mode="max", every_n_train_steps=2, save_top_k=1, save_last=True)
        trainer(tmp_path, ckpt, max_epochs=1).fit(Rising(), loader(batches=12))
    assert [dict(count) for count in counts[5:]] == [{"list": 1, "head": 2} if i % 2 else {} for i in range(5, 12)]
    assert len(catalog(url)) == 2


class Rising(Scripted):
    """Each step is better than the one before."""

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("train_loss", float(batch_idx))
        return loss


def test_who_waits_finds_it_removed():
    """``wait`` and ``close`` come back when what retention has dropped is gone, however long the server takes."""
    url = f"memory://{secrets.token_hex(4)}"
    words = {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "loss"}
    slow = threading.Event()
    with watched(lambda kind: slow.wait(0.02)):
        with Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
            for step in (1, 2):
                ckpt.step({"loss": -float(step)})
            ckpt.wait()
            assert [blob.name for blob in open_store(url).blobs()] == ["epoch=0-step=2.ckpt"]
            for step in (3, 4):
                ckpt.step({"loss": -float(step)})
        assert [blob.name for blob in open_store(url).blobs()] == ["epoch=0-step=4.ckpt"]


def test_a_pin_that_comes_before_the_removal():
    """A checkpoint that is pinned after retention has dropped it stays, and is among the run's again."""
    url = f"memory://{secrets.token_hex(4)}"
    words = {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "loss"}
    first, done = f"{url}/epoch=0-step=1.ckpt", []

    def pin_once(kind):
        if not done:
            done.append(kind)
            open_checkpoint(first).pin()

    with watched(pin_once), Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
        for step in (1, 2):
            ckpt.step({"loss": -float(step)})
        ckpt.wait()
        assert done
        assert ckpt._ledger.named("epoch=0-step=1.ckpt") is not None
        assert ckpt.best_model_path == f"{url}/epoch=0-step=2.ckpt"
        ckpt.step({"loss": -3.0})
    assert {item.step for item in catalog(url)} == {1, 3}


def test_a_removal_that_fails():
    """What the server refuses is warned of at a later call, and neither the save nor those after it fail."""
    url = f"memory://{secrets.token_hex(4)}"
    words = {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "loss", "on_error": "raise"}

    def refuse(kind):
        if kind == "remove":
            raise PermissionError(13, "AccessDenied")

    with watched(refuse), Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
        for step in (1, 2):
            ckpt.step({"loss": -float(step)})
        with pytest.warns(UserWarning, match=r"step=1\.ckpt could not be removed.*AccessDenied"):
            ckpt.wait()
        ckpt.step({"loss": -3.0})
        with pytest.warns(UserWarning, match=r"step=2\.ckpt could not be removed"):
            ckpt.wait()
    assert {item.step for item in catalog(url)} == {1, 2, 3}


@pytest.mark.parametrize("behind", [True, False])
def test_a_name_that_is_being_removed(behind):
    """The name of a file on its way out is given again, as it is where saves wait, and not before the file is gone."""
    url = f"memory://{secrets.token_hex(4)}"
    words = {"filename": "{turn}", "every_n_train_steps": 1, "save_top_k": 1, "async_save": behind}
    slow, names = threading.Event(), []
    with watched(lambda kind: slow.wait(0.02)), Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
        for step in range(6):
            ckpt.step({"turn": step % 2})
            for flight in list(ckpt._flights):
                flight.wait()
            ckpt._look_after()
            names.append(ckpt.best_model_path.rpartition("/")[2])
    assert names == [f"turn={step % 2}.0.ckpt" for step in range(6)]
    assert [(item.name, item.step) for item in catalog(url)] == [("turn=1.0.ckpt", 6)]


def test_what_was_resumed_from_stays():
    """Whatever was decided, a removal looks once more whether the run has resumed from the file."""
    url = f"memory://{secrets.token_hex(4)}"
    with Checkpointer(url, model=torch.nn.Linear(2, 1), every_n_train_steps=1) as ckpt:
        ckpt.step()
    store, name = open_store(url), "epoch=0-step=1.ckpt"
    before = Ledger(entries=(Entry(name, None, 1, 0, 1),))
    run = Run(make_settings(), store, ckpt.run.run)
    leaving = Leaving([name], before, Removal(run, before, before, [name], {}, lambda: frozenset({name})))
    left = leaving.look(wait=True)
    assert left.stay == (name,)
    assert leaving.settled(Ledger(), left) == before
    assert store.exists(name)


def test_a_forked_child_waits_for_no_removal():
    """In a forked child the removal is the parent's: the child does not wait for a thread that it does not have."""
    url = f"memory://{secrets.token_hex(4)}"
    words = {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "loss"}
    go = threading.Event()
    with watched(lambda kind: go.wait(60)), Checkpointer(url, model=torch.nn.Linear(2, 1), **words) as ckpt:
        for step in (1, 2):
            ckpt.step({"loss": -float(step)})
            ckpt._flights[0].wait()
        ckpt._look_after()
        assert ckpt._leaving
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            ckpt._see_off(wait=True)
            os._exit(0 if not ckpt._leaving else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go.set()
    assert [blob.name for blob in open_store(url).blobs()] == ["epoch=0-step=2.ckpt"]


def test_with_a_mirror_a_step_asks_nothing(tmp_path):
    """A run with a directory and a mirror makes no request on the thread that trains, saves and removals included."""
    url = f"memory://{secrets.token_hex(4)}"
    with watched() as seen, Checkpointer(tmp_path, mirror=url, model=torch.nn.Linear(2, 1), **WORDS) as ckpt:
        seen.clear()
        for step in range(1, 13):
            ckpt.step({"loss": -float(step)})
            settle(ckpt)
        assert not trained(seen)
    assert {item.step for item in catalog(url)} >= {10, 12}
