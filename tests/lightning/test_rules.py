"""``keep=`` and ``save_when=`` under the real Trainer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import holdfast
from holdfast import At, Best, EveryEpochs, EverySeconds, EverySteps, FakeClock, Latest, OnImprovement, OnSignal
from tests.support.lightning_cases import ModelCheckpoint, fit, names, steps
from tests.support.lightning_models import Scripted

VALS = (5.0, 3.0, 4.0, 1.0, 2.0)  # measured at the end of each epoch


def train(folder, *, root=None, epochs=5, batches=4, ckpt_path=None, model=None, options=None, **words):
    callback = ModelCheckpoint(dirpath=folder, **words)
    fit(
        root or folder.parent,
        callback,
        vals=None if model is not None else VALS,
        model=model,
        batches=batches,
        max_epochs=epochs,
        ckpt_path=ckpt_path,
        **(options or {}),
    )
    return callback


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (EverySteps(6), [6, 12, 18]),
        (EverySteps(6) | EverySteps(10), [6, 10, 12, 18, 20]),
        (EverySteps(7) | EveryEpochs(2), [7, 8, 14, 16]),
        (At([1, 13]) | EveryEpochs(4), [1, 13, 16]),
        (OnImprovement("val_loss"), [4, 8, 16]),
        (OnImprovement("val_loss", min_delta=2.5) | At([3]), [3, 4, 16]),
        ([], []),
    ],
)
def test_triggers_stand_beside_each_other(tmp_path, when, expected):
    """One callback saves by steps, epochs, single steps and improvements at once."""
    train(tmp_path / "d", save_when=when, save_top_k=-1)
    assert steps(tmp_path / "d") == expected


def test_a_time_stands_beside_the_epochs(tmp_path):
    """Seconds and epochs in one callback: what Lightning's class refuses."""

    class Slow(Scripted):
        def on_train_batch_start(self, batch, batch_idx):
            clock.advance(1)

    clock = FakeClock()
    train(
        tmp_path / "d", model=Slow(), epochs=2, save_when=EverySeconds(3) | EveryEpochs(1), keep=Latest(9), clock=clock
    )
    assert steps(tmp_path / "d") == [3, 4, 6, 8]


def test_the_time_between_saves_follows_what_they_cost(tmp_path):
    """Under Lightning as in a plain loop: the first save after ``least``, and none soon after one that took long."""

    class Slow(Scripted):
        def on_train_batch_start(self, batch, batch_idx):
            clock.advance(1)
            for callback in self.trainer.checkpoint_callbacks:
                callback.stats.stall_seconds = 1e4 * max(callback.stats.saves, callback.stats.committed)

    clock = FakeClock()
    when = EverySeconds("auto", mtbf="1h", least=3, most=9)
    train(tmp_path / "d", model=Slow(), epochs=4, save_when=when, keep=Latest(9), clock=clock)
    assert steps(tmp_path / "d") == [3, 12]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Latest(2), [18, 20]),
        (Latest(1) | Best(2, "val_loss"), [16, 20]),
        (EverySteps(8) | Best(1, "val_loss", mode="max"), [4, 8, 16, 20]),
        ([], [20]),
    ],
)
def test_rules_keep_what_they_say(tmp_path, keep, expected):
    """The union of the rules, whatever the triggers; ``Best`` ranks states that were measured, and no others."""
    train(tmp_path / "d", save_when=EverySteps(2), keep=keep)
    assert steps(tmp_path / "d") == expected
    assert all(decision.keep for decision in holdfast.catalog(tmp_path / "d").plan())


def test_a_step_at_which_a_validation_starts_is_saved_once_with_its_metric(tmp_path):
    """The save waits for the validation of its own state; between validations it is saved at once, unranked."""
    callback = train(tmp_path / "d", save_when=EverySteps(2), keep=Latest(99), monitor="val_loss")
    assert steps(tmp_path / "d") == list(range(2, 21, 2))
    scores = {item.step: item.score for item in holdfast.catalog(tmp_path / "d")}
    assert scores == {step: dict(zip((4, 8, 12, 16, 20), VALS, strict=True)).get(step) for step in range(2, 21, 2)}
    assert callback.best_model_path.endswith("epoch=3-step=16.ckpt")
    assert len(callback.best_k_models) == 5


def test_a_resume_goes_on_by_the_rules(tmp_path):
    """The files and the best improvement so far are found again; the run goes on as if nothing had happened."""
    words = {"save_when": OnImprovement("val_loss") | EverySteps(6), "keep": Latest(2) | Best(1, "val_loss")}
    train(tmp_path / "whole", **words)
    train(tmp_path / "d", epochs=3, **words)
    newest = holdfast.newest(tmp_path / "d")
    model = Scripted(VALS)
    model.validations = 3
    callback = train(tmp_path / "d", model=model, ckpt_path=newest, **words)
    assert set(names(tmp_path / "whole")) <= set(names(tmp_path / "d"))
    assert callback.best_model_path.endswith("epoch=3-step=16.ckpt")


def test_another_policy_finds_the_files_of_the_earlier_one(tmp_path):
    """A run that goes on with other rules takes over what it had saved before, and prunes by them."""
    train(tmp_path / "d", epochs=3, every_n_epochs=1, save_top_k=-1)
    assert steps(tmp_path / "d") == [4, 8, 12]
    newest = holdfast.newest(tmp_path / "d")
    train(tmp_path / "d", ckpt_path=newest, every_n_epochs=1, keep=Latest(2))
    assert steps(tmp_path / "d") == [12, 16, 20], "the two newest, and the one resumed from"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"save_when": EverySteps(2), "every_n_epochs": 1}, "every_n_epochs"),
        ({"save_when": EverySteps(2), "train_time_interval": timedelta(1)}, "train_time_interval"),
        ({"keep": Latest(2), "save_top_k": 3}, "save_top_k"),
        ({"keep": EverySeconds(2)}, "EverySeconds"),
        ({"save_when": Latest(2)}, "Latest"),
        ({"save_when": OnSignal(), "save_on_signal": False}, "OnSignal"),
    ],
)
def test_contradictions_are_named(tmp_path, words, named):
    """What says the same thing twice is Lightning's own error for wrong arguments, and names both."""
    with pytest.raises(MisconfigurationException, match=named):
        ModelCheckpoint(dirpath=tmp_path, **words)


def test_a_callback_notes_its_checkpoints(tmp_path):
    """``ModelCheckpoint`` tags, pins and scores a checkpoint by its path, and a fit that goes on keeps to it."""
    words = {"monitor": "val_loss", "save_top_k": 1}
    callback = train(tmp_path / "d", epochs=1, **words)
    first = callback.best_model_path
    callback.tag(first, "paper")
    callback.pin(first)
    callback.add_metrics(first, {"acc": 0.5})
    again = train(tmp_path / "d", epochs=3, ckpt_path=first, **words)
    assert again.best_model_path != first
    kept = holdfast.open(first)
    assert (kept.tags, kept.pinned, kept.metrics["acc"]) == (("paper",), True, 0.5)


def test_what_a_fit_resumed_from_is_not_pruned(tmp_path):
    """The command's own pruning keeps what a run under Lightning resumed from, and says so, whatever the rules."""
    words = {"monitor": "val_loss", "keep": Latest(1)}
    first = train(tmp_path / "d", epochs=1, **words).best_model_path
    train(tmp_path / "d", epochs=3, ckpt_path=first, **words)
    source, newest = holdfast.open(first), holdfast.catalog(tmp_path / "d")[0]
    assert source.path != newest.path
    for keep in (None, [], Latest(1)):
        kept = {item.path: item.reason for item in holdfast.prune(tmp_path / "d", keep) if item.keep}
        assert "the run resumed from it" in kept[source.path]
    assert "the run resumed from it" in source.kept
