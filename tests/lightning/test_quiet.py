"""Dry runs, sanity checks, validation, test and prediction write nothing; nor does anything else stray."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping

from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, loader, names, quietly, trainer
from tests.support.lightning_parts import Probe, Whole

EVERYTHING = {"save_last": True, "save_top_k": -1, "save_on_exception": True, "every_n_train_steps": 1}


@pytest.mark.parametrize("fast_dev_run", [True, 3])
@pytest.mark.parametrize(
    "words", [EVERYTHING, {"monitor": "val_loss", "save_last": True}, {"save_top_k": 0, "save_last": True}]
)
def test_a_dry_run_writes_nothing(words, fast_dev_run, tmp_path):
    """``fast_dev_run`` leaves no file and no folder."""
    fit(tmp_path, ModelCheckpoint(tmp_path / "d", **words), fast_dev_run=fast_dev_run)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_writes_nothing(stage, tmp_path):
    """``validate``, ``test`` and ``predict`` leave no file and no folder, also after a fit."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", **EVERYTHING)
    made = trainer(tmp_path, cb)
    getattr(made, stage)(Whole(), loader())
    assert not (tmp_path / "d").exists()
    made.fit(Whole(), loader(), loader())
    before, standing = names(tmp_path / "d"), (cb.best_model_path, dict(cb.best_k_models))
    getattr(made, stage)(Whole(), loader())
    assert names(tmp_path / "d") == before
    assert (cb.best_model_path, dict(cb.best_k_models)) == standing


def test_the_sanity_check_writes_nothing(tmp_path):
    """No file is there when the first training epoch begins."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_on_train_epoch_end=False, save_last=True)
    seen = []
    probe = Probe(on_train_epoch_start=lambda _: seen.append(names(tmp_path / "d")))
    fit(tmp_path, cb, probe, num_sanity_val_steps=2, max_epochs=1)
    assert seen == [[]]
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt", "last.ckpt"]


def test_no_steps_no_files(tmp_path):
    """A fit in which no step is taken writes nothing."""
    fit(tmp_path, ModelCheckpoint(tmp_path / "d", save_last=True), max_epochs=0)
    assert names(tmp_path / "d") == []


@pytest.mark.parametrize("words", [EVERYTHING, {"monitor": "val_loss", "save_top_k": 2, "save_last": "link"}])
def test_nothing_but_checkpoints_in_the_directory(words, tmp_path):
    """At no hook is there anything but ``.ckpt`` files: no side files, hidden or not, no temporaries."""
    cb = ModelCheckpoint(tmp_path / "d", **words)
    seen = set()
    hooks = [name for name in dir(pl.Callback) if name.startswith(("on_train", "on_validation"))]
    fit(tmp_path, cb, Probe(**dict.fromkeys(hooks, lambda _: seen.update(names(tmp_path / "d")))), max_epochs=3)
    seen.update(names(tmp_path / "d"))
    assert seen
    assert [name for name in seen if not name.endswith(".ckpt")] == []
    assert names(tmp_path) == [f"d/{name}" for name in names(tmp_path / "d")]


def test_a_filled_directory_is_warned_of(tmp_path):
    """Fitting into a directory that is not empty warns, as in 2.6; evaluation does not."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "other").write_text("")
    _, messages = quietly(fit, tmp_path, ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    assert [text for text in messages if "exists and is not empty" in text]
    made = trainer(tmp_path, ModelCheckpoint(tmp_path / "d"))
    _, messages = quietly(made.validate, Scripted(), loader())
    assert not [text for text in messages if "exists and is not empty" in text]


def test_with_other_callbacks(tmp_path):
    """Early stopping at the same epoch end does not take the last save away."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True, save_top_k=-1)
    stop = EarlyStopping("val_loss", patience=1)
    made = fit(tmp_path, stop, cb, vals=[5, 6, 4], max_epochs=9)
    assert made.global_step == 4
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt", "last.ckpt"]
