"""Several that save from one process, threads, forks, signals and interruptions: what one does to the other."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import pytest
import torch

import holdfast
from holdfast import Checkpointer, SaveError
from holdfast.engine import saver as saver_module
from holdfast.storage.local import LocalStore
from tests.engine.conftest import PATIENCE
from tests.support.lightning_cases import run_script


def trained(width=160):
    torch.manual_seed(0)
    model = torch.nn.Linear(width, width)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def step(model, optimizer):
    model(torch.rand(2, model.in_features)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def slow(monkeypatch):
    """Have every write of the local store take some milliseconds."""
    real = LocalStore.put

    def put(store, name, chunks, **words):
        time.sleep(0.02)
        return real(store, name, chunks, **words)

    monkeypatch.setattr(LocalStore, "put", put)


@pytest.mark.parametrize("last", [False, True])
def test_two_never_save_under_one_name(tmp_path, slow, last):
    """While one's file is on its way, another of the same directory and template takes another name, and both stay."""
    model, _ = trained()
    words = {"model": model, "every_n_epochs": 1, "save_last": last}
    best, newest = Checkpointer(tmp_path, monitor="v", **words), Checkpointer(tmp_path, **words)
    for score in (1.0, 5.0, 6.0):
        for ckpt in (best, newest):
            ckpt.step()
        for ckpt in (best, newest):
            ckpt.end_epoch({"v": score})
    for ckpt in (best, newest):
        ckpt.close()
    assert holdfast.load(best.best_model_path)["global_step"] == 1
    assert holdfast.load(newest.best_model_path)["global_step"] == 3
    if last:
        assert best.last_model_path != newest.last_model_path


TWO_IMAGES = """
import sys, torch
from holdfast import Checkpointer
model = torch.nn.Linear(300, 300)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
words = {"model": model, "optimizer": optimizer, "every_n_train_steps": 1, "overlap": True, "images": 2}
one, two = (Checkpointer(f"{sys.argv[1]}/{name}", **words) for name in ("one", "two"))
for _ in range(4):
    model(torch.rand(1, 300)).sum().backward()
    optimizer.step()
    one.step()
    two.step()
two.wait()
two.close()
one.close()
print("committed", one.stats.committed, two.stats.committed)
"""


def test_waiting_for_one_lets_the_other_go_on(tmp_path):
    """Of two overlapped saves with an image each, the later is waited for: the earlier one's gate opens, too."""
    done = run_script(TWO_IMAGES, tmp_path, timeout=60)
    assert done.stdout.strip() == "committed 4 4", done.stderr


class KeepsParameters(torch.nn.Linear):
    """Its state holds the parameters themselves, or what is behind them, which have counts of their own."""

    def __init__(self, width, *, data):
        super().__init__(width, width)
        self.data_only = data

    def state_dict(self, *_, **__):
        return {name: item.data if self.data_only else item for name, item in self.named_parameters()}


@pytest.mark.parametrize("data", [False, True])
def test_what_is_trained_is_watched_whatever_the_state_shows(slow_copies, tmp_path, data):
    """A counted write to a parameter, of which the state has only the ``.data``, costs the save, and tears nothing."""
    torch.manual_seed(0)
    model = KeepsParameters(160, data=data)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    slow_copies.moment = "halfway"
    oracles = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}", "overlap": True}
        with Checkpointer(tmp_path, model=model, optimizer=optimizer, **words) as ckpt:
            for number in range(1, 7):
                step(model, optimizer)
                oracles[number] = model.weight.detach().clone()
                ckpt.step()
                if number > 3:
                    with torch.no_grad():
                        model.weight.neg_()
    for number, weight in oracles.items():
        path = tmp_path / f"step={number}.ckpt"
        if path.exists():
            assert torch.equal(holdfast.load(path)["state_dict"]["weight"], weight)
    assert ckpt.stats.given_up == 1


def test_threads_that_train_do_not_share_an_image(tmp_path):
    """Three threads with a model each: every save is committed, whole, and holds its own model."""
    problems = []

    def run(number):
        model = torch.nn.Linear(200, 200)
        torch.nn.init.constant_(model.weight, number)
        try:
            with Checkpointer(tmp_path / str(number), model=model, every_n_train_steps=1, save_top_k=-1) as ckpt:
                for _ in range(12):
                    ckpt.step()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            problems.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    for number in range(3):
        paths = list((tmp_path / str(number)).iterdir())
        assert len(paths) == 12
        for path in paths:
            assert holdfast.load(path)["state_dict"]["weight"].unique().tolist() == [number]


def test_a_save_from_a_signal_handler_is_refused(tmp_path, monkeypatch):
    """A handler that saves amid a save gets an error that says what to do instead; training goes on."""
    model, _ = trained()
    told = []

    def handler(*_):
        with pytest.raises(SaveError, match="Set a flag") as caught:
            ckpt.save_checkpoint()
        told.append(caught.value)

    real = saver_module.capture

    def capture(*arguments, **words):
        if not told:
            signal.raise_signal(signal.SIGUSR1)
        return real(*arguments, **words)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        words = {"every_n_train_steps": 1, "async_save": True, "save_on_signal": False}
        with Checkpointer(tmp_path, model=model, **words) as ckpt:
            monkeypatch.setattr(saver_module, "capture", capture)
            ckpt.step()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(told) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=0-step=1.ckpt"]


@pytest.mark.parametrize("after", [False, True])
def test_an_interruption_as_the_thread_starts(tmp_path, monkeypatch, after):
    """Ctrl-C right before or after the save's thread begins: nothing waits for a save that nobody makes."""
    model, _ = trained()
    real = threading.Thread.start

    def start(thread):
        if thread.name == "holdfast-save":
            if after:
                real(thread)
            raise KeyboardInterrupt
        real(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt), Checkpointer(tmp_path, model=model, every_n_train_steps=1) as ckpt:
            ckpt.step()
    assert len(list(tmp_path.iterdir())) == after
    with Checkpointer(tmp_path, model=model, every_n_train_steps=1) as ckpt:
        ckpt.step()
    assert len(list(tmp_path.glob("*.ckpt"))) >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked")
def test_a_child_that_lives_on_locks_nothing(tmp_path, monkeypatch):
    """A process forked amid a put, which has the file open as long as it lives, does not hold up its second name."""
    store = LocalStore(str(tmp_path))
    children = []

    def gate():
        child = os.fork()
        if not child:
            time.sleep(PATIENCE)
            os._exit(0)
        children.append(child)

    store.put("x.ckpt", [b"x" * 100], gate=gate)
    try:
        begun = time.monotonic()
        store.link("x.ckpt", "last.ckpt")
        assert store.put("x.ckpt", [b"y"], over=store.retire("x.ckpt")) == 1
        assert time.monotonic() - begun < PATIENCE / 2
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert store.sweep() == []


def test_one_that_is_dropped_leaves_nothing(tmp_path):
    """A checkpointer with overlap that is never closed takes its hook, its saver and its image along."""
    import gc

    from torch.optim import optimizer as hooks

    def use():
        model, optimizer = trained()
        ckpt = Checkpointer(tmp_path, model=model, optimizer=optimizer, every_n_train_steps=1, overlap=True)
        for _ in range(3):
            step(model, optimizer)
            ckpt.step()
        ckpt.wait()

    gc.collect()
    before = len(hooks._global_optimizer_pre_hooks)
    use()
    gc.collect()
    assert len(hooks._global_optimizer_pre_hooks) == before


def test_an_earlier_failure_costs_neither_the_next_save_nor_the_count(tmp_path, monkeypatch):
    """Who catches the error of an earlier save has the one that was due, and the right epoch."""
    model, _ = trained()
    real, failing = LocalStore.put, ["epoch=0-step=2.ckpt"]

    def put(store, name, chunks, **words):
        if name in failing:
            raise OSError(28, "No space left on device")
        return real(store, name, chunks, **words)

    monkeypatch.setattr(LocalStore, "put", put)
    ckpt = Checkpointer(tmp_path, model=model, every_n_epochs=1, save_top_k=-1)
    for _ in range(3):
        for _ in range(2):
            ckpt.step()
        try:
            ckpt.end_epoch()
            ckpt.wait()
        except SaveError:
            assert not ckpt.best_model_path
    assert ckpt.current_epoch == 3
    ckpt.close()
    found = {path.name: torch.load(path)["next_epoch"] for path in tmp_path.iterdir()}
    assert found == {"epoch=1-step=4.ckpt": 2, "epoch=2-step=6.ckpt": 3}
