"""Decisions with saves on their way are those of saves that wait, whatever the speed of the disk."""

from __future__ import annotations

import os
import tempfile
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast import Checkpointer, Latest, OnImprovement
from holdfast.front import forgetting
from holdfast.storage.local import LocalStore
from tests.front.loops import names, step_of
from tests.support.properties import examples


def scores():
    """Metrics with ties, and some that are no numbers."""
    return st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, float("nan"), float("inf")]), min_size=1, max_size=9)


def words():
    return st.fixed_dictionaries(
        {
            "save_top_k": st.sampled_from([-1, 0, 1, 2, 3]),
            "mode": st.sampled_from(["min", "max"]),
            "save_last": st.sampled_from([None, True, "link"]),
            "filename": st.sampled_from(["{step}", "{v}-{step}", "same"]),
        }
    )


def delays():
    """For each write: how many steps of training it takes; 0: it may finish at any time."""
    return st.lists(st.integers(0, 3), min_size=40, max_size=40)


class Delayed:
    """A disk on which each write takes a number of training steps, unless training waits for it."""

    def __init__(self, taken):
        self.taken = iter(taken)
        self.now = 0
        self.released = False
        self.moved = threading.Condition()

    def put(self, original, *given, **words):
        with self.moved:
            due = self.now + next(self.taken)
            self.moved.wait_for(lambda: self.now >= due or self.released)
        return original(*given, **words)

    def move(self):
        with self.moved:
            self.now += 1
            self.moved.notify_all()

    def release(self, original, flight):
        with self.moved:
            self.released = True
            self.moved.notify_all()
        original(flight)
        with self.moved:
            self.released = False


def run(folder, metrics, chosen, disk=None, **mode):
    """Train with a score a step; return what is there and what is said of it."""
    ckpt = Checkpointer(folder, model=torch.nn.Linear(1, 1), monitor="v", every_n_train_steps=1, **chosen, **mode)
    for metric in metrics:
        ckpt.step({"v": metric})
        if disk is not None:
            disk.move()
    ckpt.close()
    scored = {path: repr(float(score)) for path, score in ckpt.best_k_models.items()}
    return {
        "files": sorted((step_of(os.path.join(folder, name)), name.startswith("last")) for name in names(folder)),
        "names": names(folder) if chosen["filename"] != "same" else None,
        "scores": sorted((step_of(path), score) for path, score in scored.items()),
        "best": ckpt.best_model_path and step_of(ckpt.best_model_path),
        "kth": ckpt.kth_best_model_path and step_of(ckpt.kth_best_model_path),
        "last": ckpt.last_model_path and step_of(ckpt.last_model_path),
        "score": repr(ckpt.best_model_score),
    }


@pytest.mark.parametrize("images", [1, 2])
@examples(30)
@given(metrics=scores(), chosen=words(), taken=delays())
def test_a_slow_disk_decides_nothing(images, metrics, chosen, taken):
    """Any scores, and any delays of the writes, end with the files and the ranking of saves that wait."""
    disk = Delayed(taken)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        expected = run(f"{folder}/waiting", metrics, chosen, async_save=False)
        put = LocalStore.put
        patch.setattr(LocalStore, "put", lambda *given, **words: disk.put(put, *given, **words))
        from holdfast.engine.flight import Flight

        wait = Flight.wait
        patch.setattr(Flight, "wait", lambda flight: disk.release(wait, flight))
        assert run(f"{folder}/behind", metrics, chosen, disk, images=images) == expected


@examples(20)
@given(metrics=scores(), chosen=words(), split=st.integers(0, 8))
def test_a_resume_decides_nothing_else(metrics, chosen, split):
    """A run that is interrupted and resumed with saves behind its back ends as one whose saves wait."""

    def both(folder, **mode):
        run(folder, metrics[:split], chosen, **mode)
        ckpt = Checkpointer(folder, model=torch.nn.Linear(1, 1), monitor="v", every_n_train_steps=1, **chosen, **mode)
        start = ckpt.resume()
        for metric in metrics[split:]:
            ckpt.step({"v": metric})
        ckpt.close()
        there = sorted(step_of(os.path.join(folder, name)) for name in names(folder))
        return start.step, there, ckpt.best_model_path and step_of(ckpt.best_model_path)

    with tempfile.TemporaryDirectory() as folder:
        assert both(f"{folder}/behind") == both(f"{folder}/waiting", async_save=False)


def test_a_step_between_saves_does_not_ask_the_rules(tmp_path, monkeypatch):
    """A value counts against the best that is on its way, and what is there is not gone through for it."""
    written, asked = threading.Event(), []
    original, rules = LocalStore.put, forgetting.to_remove
    monkeypatch.setattr(LocalStore, "put", lambda *given, **words: (written.wait(20), original(*given, **words))[1])
    monkeypatch.setattr(forgetting, "to_remove", lambda *given: asked.append(1) or rules(*given))
    model = torch.nn.Linear(1, 1)
    with Checkpointer(tmp_path, model=model, images=2, save_when=OnImprovement("v"), keep=Latest(9)) as ckpt:
        for value in (3.0, 4.0, 3.5, 3.0):
            ckpt.step({"v": value})
        assert not asked
        ckpt.step({"v": 2.0})
        written.set()
    assert sorted(step_of(tmp_path / name) for name in names(tmp_path)) == [1, 5]
