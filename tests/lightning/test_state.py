"""The state key, callbacks side by side, and round trips through pickle and cloudpickle."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
from datetime import timedelta

import cloudpickle
import pytest
import torch

from holdfast.lightning import CheckpointIO
from tests.support.lightning_cases import ModelCheckpoint, Stock, fit, names, step_of, trainer

SEED_KEY = {
    "monitor": ("val_loss", "train_loss"),
    "mode": ("min", "max"),
    "every_n_train_steps": (3, 4),
    "every_n_epochs": (1, 2),
    "train_time_interval": (timedelta(1), timedelta(2)),
    "save_on_train_epoch_end": (True, False),
}
BEYOND_THE_SEED = {
    "dirpath": ("one", "two"),
    "filename": ("{epoch}-a", "{epoch}-b"),
    "save_top_k": (1, 2),
    "save_weights_only": (True, False),
}


@pytest.mark.parametrize(("word", "values"), [*SEED_KEY.items(), *BEYOND_THE_SEED.items()])
def test_callbacks_that_differ_in_one_word_have_their_own_keys(word, values):
    """Two callbacks that differ in any of these words have different keys, and equal ones the same."""
    one, other = (ModelCheckpoint(**{"monitor": "val_loss", word: value}) for value in values)
    assert one.state_key != other.state_key
    assert one.state_key == ModelCheckpoint(**{"monitor": "val_loss", word: values[0]}).state_key


def test_the_key_has_the_words_of_the_documentation():
    """The key begins with the class and the documented words, which older readers look for."""
    key = ModelCheckpoint(monitor="val_loss").state_key
    assert key.startswith("ModelCheckpoint{'monitor': 'val_loss', 'mode': 'min', 'every_n_train_steps': 0, ")


def test_the_key_does_not_change_while_training(tmp_path):
    """Settling on the directory and a logger's directory leave the key as it was when built."""
    cb = ModelCheckpoint(monitor="val_loss")
    before = cb.state_key
    fit(tmp_path, cb, max_epochs=1)
    assert cb.dirpath is not None
    assert cb.state_key == before


@pytest.mark.parametrize(("word", "values"), BEYOND_THE_SEED.items())
def test_side_by_side(word, values, tmp_path):
    """Two callbacks that differ only in this word train together and each keeps its own ranking at resume."""

    def pair():
        words = {"dirpath": "d", "monitor": "val_loss", "save_top_k": 2}
        return [ModelCheckpoint(**{**words, word: value}) for value in values]

    first = pair()
    fit(tmp_path, *first, vals=[5, 3], max_epochs=2)
    source = first[1].best_model_path
    second = pair()
    fit(tmp_path, *second, vals=[4, 6], max_epochs=4, ckpt_path=source)
    for cb, value in zip(second, values, strict=True):
        scores = {step_of(path): float(score) for path, score in cb.best_k_models.items()}
        assert scores == ({4: 3.0} if (word, value) == ("save_top_k", 1) else {4: 3.0, 6: 4.0})
    ranked = [path for cb in second for path in cb.best_k_models]
    folders = {cb.dirpath for cb in second}
    assert sorted(ranked) == sorted(os.path.join(folder, name) for folder in folders for name in names(folder))


def test_side_by_side_with_the_stock_class(tmp_path):
    """Our callback and Lightning's own work in one Trainer, each with its own files."""
    ours = ModelCheckpoint(tmp_path / "ours", monitor="val_loss")
    theirs = Stock(tmp_path / "theirs", monitor="val_loss")
    fit(tmp_path, ours, theirs, vals=[5, 4], max_epochs=2)
    assert names(tmp_path / "ours") == names(tmp_path / "theirs") == ["epoch=1-step=4.ckpt"]


def test_two_equal_callbacks_are_refused(tmp_path):
    """Callbacks that nothing tells apart are refused by the Trainer, as Lightning does."""
    with pytest.raises(RuntimeError, match="more than one"):
        trainer(tmp_path, ModelCheckpoint("d"), ModelCheckpoint("d"))


def _callbacks(folder):
    fresh = ModelCheckpoint(folder / "fresh", "{epoch}", "val_loss", save_top_k=3, train_time_interval=timedelta(1))
    used = ModelCheckpoint(folder / "used", monitor="val_loss", save_top_k=2, save_last=True, mode="max")
    fit(folder, used, vals=[5, 4, 6], max_epochs=3)
    return fresh, used


def _own_vars(cb):
    """The attributes of a callback without the two that the Trainer hangs on every callback."""
    return {name: value for name, value in vars(cb).items() if name not in ("log", "log_dict")}


@pytest.mark.parametrize("library", [pickle, cloudpickle, copy], ids=["pickle", "cloudpickle", "deepcopy"])
def test_round_trips(library, tmp_path):
    """A callback, new or used, comes back with equal attributes and goes on working."""
    for cb in _callbacks(tmp_path):
        back = copy.deepcopy(cb) if library is copy else library.loads(library.dumps(cb))
        assert _own_vars(back) == _own_vars(cb)
        assert back.state_key == cb.state_key
    before = set(names(tmp_path / "used"))
    fit(tmp_path, back, vals=[7, 8], max_epochs=2)
    assert float(back.best_model_score) == 8.0
    assert step_of(back.best_model_path) == 4
    assert set(names(tmp_path / "used")) != before


@pytest.mark.parametrize("library", [pickle, cloudpickle])
def test_round_trip_of_the_io(library, tmp_path):
    """A ``CheckpointIO`` that was used survives as well."""
    io = CheckpointIO(allow=[timedelta])
    fit(tmp_path, ModelCheckpoint(tmp_path / "d"), plugins=[io], max_epochs=1)
    back = library.loads(library.dumps(io))
    assert (back.verify, back.allow) == (True, (timedelta,))
    fit(tmp_path, ModelCheckpoint(tmp_path / "e"), plugins=[back], max_epochs=1)
    assert len(names(tmp_path / "e")) == 1


def test_one_callback_in_two_trainers(tmp_path):
    """A callback that is used again keeps its directory and its ranking, as in 2.6."""
    cb = ModelCheckpoint(monitor="val_loss")
    fit(tmp_path / "one", cb, vals=[3], max_epochs=1)
    fit(tmp_path / "two", cb, vals=[4], max_epochs=1)
    assert not (tmp_path / "two").exists()
    assert len(names(tmp_path / "one" / "checkpoints")) == 1
    assert float(cb.best_model_score) == 3.0


def test_the_state_is_plain(tmp_path):
    """The state holds tensors, numbers and strings alone, so that the safe loader reads every file."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=2, save_last=True)
    fit(tmp_path, cb, max_epochs=3)
    state = torch.load(cb.last_model_path, weights_only=True)["callbacks"][cb.state_key]
    assert not [path for path in itertools.chain(state["best_k_models"], [state["best_model_path"]]) if "/" in path]
    assert list(state["best_k_models"]) == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt"]
