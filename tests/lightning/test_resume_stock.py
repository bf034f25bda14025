"""Runs that Lightning's own class began, of 2.6 and of 1.5, go on with ours."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from lightning.pytorch.utilities.migration.migration import _migrate_model_checkpoint_save_on_train_epoch_end_default

from tests.support.lightning_cases import ModelCheckpoint, Stock, fit, names, quietly, step_of

WORDS = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}


def _train(cls, folder, vals, epochs, ckpt_path=None, **words):
    cb = cls(dirpath=folder, **{**WORDS, **words})
    fit(folder.parent, cb, vals=vals, max_epochs=epochs, ckpt_path=ckpt_path)
    return cb


def _scores(cb):
    return {step_of(path): float(score) for path, score in cb.best_k_models.items()}


def _in_the_manner_of_1_5(path, keys, *, migrated):
    """Rewrite a checkpoint of 2.6 so that its callback state is as Lightning 1.5 left it.

    Lightning migrates the keys of files that say they are of 1.5 before a callback sees them.
    """
    checkpoint = torch.load(path, weights_only=True)
    ((key, state),) = [item for item in checkpoint["callbacks"].items() if item[0].startswith("ModelCheckpoint")]
    old_key = key[:-1] + ", 'save_on_train_epoch_end': None}"
    checkpoint["callbacks"] = {old_key: {name: state[name] for name in keys}}
    if migrated:
        checkpoint = _migrate_model_checkpoint_save_on_train_epoch_end_default(checkpoint)
        assert list(checkpoint["callbacks"]) == [key]
    torch.save(checkpoint, path)


KEYS_OF_1_5_0 = ("monitor", "best_model_score", "best_model_path", "current_score", "dirpath")
KEYS_OF_1_5_7 = (*KEYS_OF_1_5_0, "best_k_models", "kth_best_model_path", "kth_value", "last_model_path")


@pytest.mark.parametrize("source", ["epoch=2-step=6.ckpt", "last.ckpt", "last"])
def test_a_stock_run_goes_on(source, tmp_path):
    """A run of the stock class keeps its ranking and its pruning, though its files have no manifest."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 3, 4], 3)
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last.ckpt"]
    cb = _train(ModelCheckpoint, folder, [2], 4, source if source == "last" else folder / source)
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert float(cb.best_model_score) == 2.0
    assert {"epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt"} <= set(names(folder))
    assert ("epoch=2-step=6.ckpt" in names(folder)) is (source == "epoch=2-step=6.ckpt")
    assert step_of(cb.last_model_path) == 8


def test_a_stock_run_goes_on_with_its_last(tmp_path):
    """``last.ckpt`` of the stock class is recognised as this run's own and brought up to date."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 4], 2)
    cb = _train(ModelCheckpoint, folder, [6, 7], 4, folder / "last.ckpt")
    assert cb.last_model_path == str(folder / "last.ckpt")
    assert step_of(cb.last_model_path) == 8
    assert names(folder) == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt", "last.ckpt"]


def test_a_stock_run_that_was_moved(tmp_path):
    """Absolute paths in a stock state are understood in the run's new place."""
    _train(Stock, tmp_path / "old" / "d", [5, 3, 4], 3)
    shutil.move(tmp_path / "old", tmp_path / "new")
    folder = tmp_path / "new" / "d"
    cb, messages = quietly(_train, ModelCheckpoint, folder, [2], 4, folder / "last.ckpt")
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert not [text for text in messages if "dirpath has changed" in text]


def test_a_stock_run_without_a_monitor(tmp_path):
    """The newest file of a stock run without a monitor is known, and goes when a newer one is committed."""
    folder = tmp_path / "d"
    words = {"monitor": None, "save_top_k": 1, "save_last": True}
    _train(Stock, folder, [5], 2, **words)
    cb = _train(ModelCheckpoint, folder, [5], 4, folder / "last.ckpt", **words)
    assert names(folder) == ["epoch=3-step=8.ckpt", "last.ckpt"]
    assert step_of(cb.best_model_path) == 8


@pytest.mark.parametrize("keys", [KEYS_OF_1_5_0, KEYS_OF_1_5_7], ids=["1.5.0", "1.5.7"])
@pytest.mark.parametrize("migrated", [True, False])
def test_states_of_lightning_1_5(migrated, keys, tmp_path):
    """A state under the key of Lightning 1.5 is found, with five entries as with nine."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 3, 4], 3)
    _in_the_manner_of_1_5(folder / "last.ckpt", keys, migrated=migrated)
    cb = _train(ModelCheckpoint, folder, [2], 4, folder / "last.ckpt")
    assert float(cb.best_model_score) == 2.0
    if keys is KEYS_OF_1_5_7:
        assert _scores(cb) == {4: 3.0, 8: 2.0}
        assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    else:  # of the ranked files such a state names only the best
        assert _scores(cb) == {4: 3.0, 8: 2.0}
        assert "epoch=1-step=4.ckpt" in names(folder)


def test_two_stock_callbacks_with_their_own_keys(tmp_path):
    """Two stock callbacks in one file find their states again, each its own."""
    folder = tmp_path / "d"

    def pair(cls):
        return [
            cls(folder, "min-{step}", "val_loss"),
            cls(folder, "max-{step}", "val_loss", mode="max"),
        ]

    first = pair(Stock)
    fit(tmp_path, *first, vals=[5, 3, 4], max_epochs=3)
    assert names(folder) == ["max-step=2.ckpt", "min-step=4.ckpt"]
    second = pair(ModelCheckpoint)
    fit(tmp_path, *second, vals=[2, 6], max_epochs=4, ckpt_path=first[1].best_model_path)
    assert float(second[0].best_model_score) == 2.0
    assert float(second[1].best_model_score) == 6.0


def test_a_stock_callback_has_one_heir(tmp_path):
    """Of two callbacks with the words of the stock one, one takes its files over: the other cannot drop its best."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 3, 4], 3, save_top_k=3)
    pair = [
        ModelCheckpoint(folder, monitor="val_loss", save_top_k=k, filename=f"{k}-{{epoch}}", save_last=False)
        for k in (1, 3)
    ]
    fit(tmp_path, *pair, vals=[6], max_epochs=4, ckpt_path=folder / "epoch=2-step=6.ckpt")
    assert sum(any(path.endswith("epoch=1-step=4.ckpt") for path in cb.best_k_models) for cb in pair) == 1
    assert all(os.path.exists(path) for cb in pair for path in (cb.best_model_path, *cb.best_k_models))


def test_our_run_goes_on_with_the_stock_class(tmp_path):
    """holdfast can be left again: Lightning's class resumes from our file."""
    folder = tmp_path / "d"
    _train(ModelCheckpoint, folder, [5, 4], 2)
    cb = _train(Stock, folder, [3, 2], 4, folder / "last.ckpt")
    assert step_of(cb.best_model_path) == 8
    assert os.path.exists(cb.last_model_path)


def test_a_second_resume_needs_the_state_no_more(tmp_path):
    """Once ours has taken a stock run over, the next resume ranks old and new files alike."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 3], 2)
    _train(ModelCheckpoint, folder, [4], 3, folder / "last.ckpt")
    cb = _train(ModelCheckpoint, folder, [6, 2], 5, folder / "last.ckpt")
    assert _scores(cb) == {4: 3.0, 10: 2.0}
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=4-step=10.ckpt", "last.ckpt"]
