"""What a plain loop saves, under which names, and what its attributes say."""

from __future__ import annotations

import math
import os
import threading
import warnings
from datetime import timedelta

import pytest
import torch

import holdfast
from holdfast import Checkpointer, ConfigurationError, FakeClock, MissingMetricError
from tests.front.loops import Loop, names, step_of


def test_the_best_are_kept_and_last_is_the_final_state(tmp_path):
    """Top two by ``val_loss`` and ``last``: exactly these files, and the attributes tell of them."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path, monitor="val_loss", save_top_k=2, save_last=True)
    loop.run(ckpt, 5, scores=[5.0, 2.0, 4.0, 1.0, 3.0])
    assert names(tmp_path) == ["epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt"]
    assert ckpt.best_model_path == str(tmp_path / "epoch=3-step=16.ckpt")
    assert (ckpt.best_model_score, ckpt.kth_value, ckpt.current_score) == (1.0, 2.0, 1.0)
    assert ckpt.kth_best_model_path == str(tmp_path / "epoch=1-step=8.ckpt")
    assert {os.path.basename(path): float(score) for path, score in ckpt.best_k_models.items()} == {
        "epoch=1-step=8.ckpt": 2.0,
        "epoch=3-step=16.ckpt": 1.0,
    }
    assert ckpt.last_model_path == str(tmp_path / "last.ckpt")
    assert step_of(tmp_path / "last.ckpt") == 20


def test_one_set_of_bytes_for_two_names(tmp_path):
    """When the same state is both ranked and last, its bytes are on the disk once."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path, save_last=True), 1)
    assert os.path.samefile(tmp_path / "epoch=0-step=4.ckpt", tmp_path / "last.ckpt")


def test_a_save_writes_what_the_model_is_now(tmp_path):
    """The file holds the state of the moment: training on does not change what was saved."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path, every_n_train_steps=1, save_top_k=-1)
    weights = []
    for batch in loop.batches(0):
        loop.learn(batch)
        ckpt.step()
        weights.append(loop.model[0].weight.detach().clone())
    for step, weight in enumerate(weights, 1):
        saved = holdfast.load(tmp_path / f"epoch=0-step={step}.ckpt")["state_dict"]["0.weight"]
        assert torch.equal(saved, weight)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, torch.tensor(2.5), 3])
def test_metrics_of_all_kinds(tmp_path, score):
    """NaN, infinities, tensors and integers are metrics; NaN is saved as the newest and never called the best."""
    ckpt = Checkpointer(tmp_path, model=torch.nn.Linear(1, 1), monitor="val_loss", mode="max")
    ckpt.step()
    ckpt.end_epoch({"val_loss": score})
    assert names(tmp_path) == ["epoch=0-step=1.ckpt"]
    facts = holdfast.verify(tmp_path / "epoch=0-step=1.ckpt").facts
    assert repr(facts.metrics["val_loss"]) == repr(float(score))
    assert bool(ckpt.best_model_path) == (not math.isnan(score))


def test_steps_without_a_save_touch_nothing(tmp_path, monkeypatch):
    """A step at which nothing is due opens no file, lists no directory and starts no thread."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path / "run", every_n_train_steps=1000, monitor="val_loss")
    before = threading.active_count()

    def forbidden(*arguments, **options):
        message = "a step without a save went to the disk"
        raise AssertionError(message)

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "lstat", "scandir", "listdir", "mkdir", "fsync", "rename"):
            patch.setattr(os, name, forbidden)
        patch.setattr("builtins.open", forbidden)
        for _ in range(999):
            ckpt.step()
    assert threading.active_count() == before
    assert names(tmp_path / "run") == []


def test_the_time_trigger_follows_the_clock_it_was_given(tmp_path):
    """Saves at the first step after each interval of the given clock, and at no other."""
    clock = FakeClock()
    ckpt = Loop().checkpointer(tmp_path, train_time_interval=timedelta(seconds=10), save_top_k=-1, clock=clock)
    for _ in range(12):
        clock.advance(3)
        ckpt.step()
    assert names(tmp_path) == ["epoch=0-step=12.ckpt", "epoch=0-step=4.ckpt", "epoch=0-step=8.ckpt"]
    facts = holdfast.verify(tmp_path / "epoch=0-step=4.ckpt").facts
    assert (facts.time, facts.reason) == ("2000-01-01T00:00:12.000+00:00", "every 10 s")


def test_a_step_save_waits_for_its_metric(tmp_path):
    """A due step is ranked by the metric of its own state: at the validation, or by the next step that brings one."""
    ckpt = Loop().checkpointer(tmp_path / "a", every_n_train_steps=2, monitor="val_loss", save_top_k=-1)
    ckpt.step()
    with pytest.warns(UserWarning, match="val_loss"):
        ckpt.step()
    ckpt.step()
    assert names(tmp_path / "a") == []
    ckpt.end_validation({"val_loss": 1.0})
    assert names(tmp_path / "a") == ["epoch=0-step=3.ckpt"]
    ckpt = Loop().checkpointer(tmp_path / "b", every_n_train_steps=2, monitor="loss", save_top_k=-1)
    ckpt.step()
    with pytest.warns(UserWarning, match="'loss'"):
        ckpt.step()
    ckpt.step({"loss": 0.5})
    assert names(tmp_path / "b") == ["epoch=0-step=3.ckpt"]


def test_a_missing_metric(tmp_path):
    """At an epoch's end after a validation, a missing monitor is an error that names it and those there were."""
    ckpt = Loop().checkpointer(tmp_path, monitor="val_acc")
    ckpt.step()
    with pytest.raises(MissingMetricError, match=r"'val_acc'.*\['val_loss'\]"):
        ckpt.end_epoch({"val_loss": 1.0})
    assert names(tmp_path) == []


def test_a_missing_metric_before_any_validation_is_said_once(tmp_path):
    """Without a validation so far, a missing monitor is one warning that names it, not an error and not silence."""
    ckpt = Loop().checkpointer(tmp_path, monitor="val_acc")
    ckpt.step()
    with pytest.warns(UserWarning, match="'val_acc'"):
        ckpt.end_epoch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ckpt.step()
        ckpt.end_epoch()


def test_two_checkpointers_side_by_side(tmp_path):
    """The best by loss and every step share a directory without taking each other's files or names."""
    loop = Loop()
    best = loop.checkpointer(tmp_path, monitor="val_loss", save_top_k=1, filename="best-{epoch}")
    every = loop.checkpointer(tmp_path, every_n_train_steps=3, save_top_k=1, save_last=True)
    for epoch, score in enumerate((2.0, 3.0, 1.0)):
        for batch in loop.batches(epoch):
            loop.learn(batch)
            best.step()
            every.step()
        best.end_epoch({"val_loss": score})
        every.end_epoch()
    best.close()
    every.close()
    assert names(tmp_path) == ["best-epoch=2.ckpt", "epoch=2-step=12.ckpt", "last.ckpt"]


def test_requests_folders_weights_and_names(tmp_path):
    """A save on request, into folders of the template, of weights alone, with the version counter."""
    loop = Loop()
    words = {"filename": "deep/{epoch}/x", "save_weights_only": True, "monitor": "m", "save_top_k": -1}
    ckpt = loop.checkpointer(tmp_path, every_n_epochs=0, **words)
    for _ in range(2):
        ckpt.step({"m": 1.0})
        ckpt.save_checkpoint()
        ckpt.save_checkpoint()  # the same state again: nothing
    assert names(tmp_path) == ["deep/epoch=0/x-v1.ckpt", "deep/epoch=0/x.ckpt"]
    state = holdfast.load(tmp_path / "deep/epoch=0/x.ckpt")
    assert set(state) & {"optimizer_states", "rng", "stateful"} == set()
    assert holdfast.verify(tmp_path / "deep/epoch=0/x.ckpt").facts.weights_only


def test_the_facts_of_a_file(tmp_path):
    """A file says by itself which step, why, by which run and policy, and with which versions it was made."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path, monitor="val_loss", save_last=True)
    loop.run(ckpt, 1, scores=[0.5])
    facts = holdfast.verify(tmp_path / "last.ckpt").facts
    assert (facts.step, facts.epoch, facts.reason, facts.kind) == (4, 0, "every epoch", "torch")
    assert facts.names == {"ranked": "epoch=0-step=4.ckpt", "last": "last.ckpt"}
    assert facts.policy == {"monitor": "val_loss", "mode": "min", "save_top_k": 1, "save_last": True}
    assert facts.versions["torch"] == torch.__version__
    assert facts.metrics == {"val_loss": 0.5}
    assert facts.run


def test_a_metric_cannot_lead_outside_the_directory(tmp_path):
    """A monitored key full of dots and slashes is refused in a template when the checkpointer is built."""
    with pytest.raises(ConfigurationError, match="outside"):
        Checkpointer(tmp_path / "run", monitor="../../x", filename="{../../x}")
    ckpt = Checkpointer(tmp_path / "run", monitor="../../x", filename="{../../x:.1f}", auto_insert_metric_name=False)
    ckpt.step()
    ckpt.end_epoch({"../../x": 0.5})
    assert names(tmp_path) == ["run/0.5.ckpt"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"save_topk": 1}, "save_topk"),
        ({"on_save_error": "ignore"}, "on_save_error"),
        ({"model": 5}, "model"),
        ({"optimizer": [object()]}, "optimizer 0"),
        ({"stateful": {"mine": 1}}, "mine"),
        ({"save_top_k": 3}, "save_top_k"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, words, named):
    """A wrong or unknown argument is a ConfigurationError that names it, and nothing is written."""
    with pytest.raises(ConfigurationError, match=named):
        Checkpointer(tmp_path / "run", **words)
    assert names(tmp_path / "run") == []
