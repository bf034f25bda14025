"""Saves behind the Trainer's back, as they are: what is told when, what is committed when ``fit`` returns."""

from __future__ import annotations

import os
import threading
import warnings

import pytest
from lightning.pytorch.loggers import CSVLogger

from holdfast import SaveError, verify
from holdfast.storage.local import LocalStore
from tests.support.lightning_cases import ModelCheckpoint, fit, loader, names, quietly, step_of, trainer
from tests.support.lightning_models import Scripted
from tests.support.lightning_parts import CrashAt, Probe

PATIENCE = 20  # seconds after which what hangs fails


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users: behind the training's back, and nobody waits."""


class Disk:
    """A disk that writes nothing while it is closed, and fails on the names it is told."""

    def __init__(self):
        self.opened = threading.Event()
        self.opened.set()
        self.failing = set()

    def put(self, original, store, name, chunks, **words):
        assert self.opened.wait(PATIENCE)
        if name in self.failing:
            raise OSError(28, "No space left on device")
        return original(store, name, chunks, **words)

    def open_soon(self):
        threading.Timer(0.1, self.opened.set).start()


@pytest.fixture
def disk(monkeypatch):
    """Have the local store's writes wait, or fail, as the test says."""
    one = Disk()
    original = LocalStore.put
    monkeypatch.setattr(LocalStore, "put", lambda *given, **words: one.put(original, *given, **words))
    yield one
    one.opened.set()


class Told(CSVLogger):
    """Remembers what the callback said of itself when it told of a save, and what was there."""

    def __init__(self, folder):
        super().__init__(folder)
        self.told = []

    def after_save_checkpoint(self, checkpoint_callback):
        best, last = checkpoint_callback.best_model_path, checkpoint_callback.last_model_path
        told = (step_of(best), float(checkpoint_callback.best_model_score), step_of(last) if last else 0)
        self.told.append(told)
        super().after_save_checkpoint(checkpoint_callback)


def test_what_is_on_its_way_is_committed_when_fit_returns(disk, tmp_path):
    """A save that is still being written when training ends is there, and named, when ``fit`` returns."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last="link")
    probe = Probe(
        on_validation_start=lambda made: disk.opened.clear() if made.current_epoch == 2 else None,
        on_train_end=lambda made: disk.open_soon(),
    )
    # The probe's hooks come before those of the callback, which waits.
    fit(tmp_path, probe, cb, vals=[5, 4, 3], max_epochs=3)
    assert names(tmp_path / "d") == ["epoch=2-step=6.ckpt", "last.ckpt"]
    assert (step_of(cb.best_model_path), step_of(cb.last_model_path)) == (6, 6)
    verify(cb.best_model_path)
    assert threading.active_count() < 20


def test_nothing_is_told_before_the_commit(disk, tmp_path):
    """With a better save on its way the old one is the best and is there, and no logger has heard of the new one."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True)
    logger = Told(str(tmp_path / "logs"))
    seen = []

    def shut(made):
        if made.current_epoch == 1:
            cb._saver.wait()
            disk.opened.clear()

    def look(made):
        if made.current_epoch == 2 and not disk.opened.is_set():
            seen.append((step_of(cb.best_model_path), step_of(cb.last_model_path), names(tmp_path / "d")))
            seen.append(list(logger.told))
            disk.opened.set()

    probe = Probe(on_train_epoch_start=shut, on_train_batch_start=look)
    fit(tmp_path, probe, cb, vals=[5, 4, 3], max_epochs=3, logger=logger, log_every_n_steps=1)
    visible = [name for name in seen[0][2] if not name.startswith(".")]
    assert seen[0][:2] == (2, 2)
    assert visible == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert seen[1] == [(2, 5.0, 2)]
    assert logger.told == [(2, 5.0, 2), (4, 4.0, 4), (6, 3.0, 6)]


def test_a_busy_disk_is_skipped_and_that_is_counted(disk, tmp_path, caplog):
    """With ``on_busy="skip"`` what is due meanwhile is left out and told; the end of training is not."""
    caplog.set_level("INFO", "holdfast")
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=1, save_top_k=-1, on_busy="skip", save_last=True)
    disk.opened.clear()
    probe = Probe(on_train_end=lambda made: disk.open_soon())
    fit(tmp_path, probe, cb, batches=4, max_epochs=1, validate=False)
    assert names(tmp_path / "d") == ["epoch=0-step=1.ckpt", "last.ckpt"]
    assert step_of(cb.last_model_path) == 4
    assert caplog.text.count("skipped the save of") == cb.stats.skipped == 4  # `last` at the epoch's end, too


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("on_exception", [False, True])
def test_what_is_on_its_way_survives_an_exception(disk, tmp_path, error, on_exception):
    """After an exception amid a save, that one is committed when ``fit`` ends, and if asked the last state."""
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=2, save_top_k=-1, save_on_exception=on_exception)

    def shut(made):
        if made.global_step == 1:
            disk.opened.clear()
        if made.global_step == 2:
            disk.open_soon()

    probe = Probe(on_train_batch_start=shut)
    with pytest.raises(error if error is not KeyboardInterrupt else (KeyboardInterrupt, SystemExit)):
        fit(tmp_path, probe, cb, CrashAt(3, error()), batches=6, max_epochs=1, validate=False)
    steps = sorted(step_of(tmp_path / "d" / name) for name in names(tmp_path / "d"))
    assert steps == [2, 3] if on_exception else [2]


@pytest.mark.parametrize("on_exception", [False, True])
def test_after_an_exception_the_attributes_name_what_is_there(disk, tmp_path, on_exception):
    """What was committed after an exception is what the attributes name and what the loggers have heard of."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="train_loss", every_n_train_steps=2, save_on_exception=on_exception)
    logger = Told(str(tmp_path / "logs"))

    def shut(made):
        if made.global_step == 1:
            disk.opened.clear()
        if made.global_step == 2:
            disk.open_soon()

    with pytest.raises(ValueError, match="scripted"):
        fit(
            tmp_path,
            Probe(on_train_batch_start=shut),
            cb,
            CrashAt(3, ValueError("scripted")),
            batches=6,
            max_epochs=1,
            validate=False,
            logger=logger,
            log_every_n_steps=1,
        )
    assert step_of(cb.best_model_path) == 2
    assert logger.told[0][0] == 2


def test_an_error_comes_back_in_the_training(disk, tmp_path):
    """With ``on_error="raise"`` a save that fails behind the Trainer's back ends the training; the old one stays."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", on_error="raise")
    disk.failing.add("epoch=1-step=4.ckpt")
    with pytest.raises(SaveError, match=r"epoch=1-step=4\.ckpt was not saved"):
        fit(tmp_path, cb, vals=[5, 4, 3, 2], max_epochs=4)
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt"]
    assert step_of(cb.best_model_path) == 2


def test_an_error_of_the_last_save_is_not_lost(disk, tmp_path):
    """With ``on_error="raise"`` a last save that fails is an error of ``fit``."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", on_error="raise")
    disk.failing.add("epoch=1-step=4.ckpt")
    with pytest.raises(SaveError, match=r"epoch=1-step=4\.ckpt was not saved"):
        fit(tmp_path, cb, vals=[5, 4], max_epochs=2)
    assert step_of(cb.best_model_path) == 2


def test_an_error_can_be_a_warning(disk, tmp_path):
    """By default training goes on, and so do the saves."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    disk.failing.add("epoch=1-step=4.ckpt")
    _, messages = quietly(fit, tmp_path, cb, vals=[5, 4, 3], max_epochs=3)
    assert sum("epoch=1-step=4.ckpt was not saved" in text for text in messages) == 1
    assert step_of(cb.best_model_path) == 6


def test_what_the_user_saves_is_there_at_once(tmp_path):
    """``trainer.save_checkpoint`` waits for its commit, also with our own saves on their way."""
    there = []

    def save(made):
        path = tmp_path / f"mine-{made.global_step}.ckpt"
        made.save_checkpoint(path)
        there.append(step_of(path) == made.global_step)
        verify(path)

    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=1, save_top_k=-1)
    fit(tmp_path, cb, Probe(on_train_batch_end=save), batches=3, max_epochs=1, validate=False)
    assert there == [True] * 3


def test_the_callbacks_own_request_is_there_at_once(tmp_path):
    """``callback.save_checkpoint`` returns when the file is committed and named."""
    there = []
    cb = ModelCheckpoint(tmp_path / "d", every_n_epochs=10)

    def save(made):
        cb.save_checkpoint(made)
        there.append(step_of(cb.best_model_path))

    fit(tmp_path, cb, Probe(on_train_batch_end=save), batches=3, max_epochs=1, validate=False)
    assert there[:3] == [1, 2, 3]


@pytest.mark.parametrize("ckpt_path", ["last", "best"])
def test_what_comes_right_after(tmp_path, ckpt_path):
    """``test`` and a further ``fit`` right after ``fit`` find the last, or the best, checkpoint."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True)
    made = fit(tmp_path, cb, vals=[5, 4], max_epochs=2)
    made.test(Scripted(), loader(), ckpt_path=ckpt_path, verbose=False)
    assert step_of(made.ckpt_path) == 4
    made.fit_loop.max_epochs = 3
    made.fit(Scripted([3]), loader(), loader(), ckpt_path=ckpt_path)
    assert step_of(cb.best_model_path) == 6


def test_several_callbacks_side_by_side(tmp_path):
    """Three callbacks with saves on their way at the same time each keep what they would alone."""
    callbacks = [
        ModelCheckpoint(tmp_path / "a", monitor="val_loss", save_top_k=2),
        ModelCheckpoint(tmp_path / "b", every_n_train_steps=1, save_top_k=-1),
        ModelCheckpoint(tmp_path / "b", filename="w-{step}", save_weights_only=True, save_last=True, overlap=True),
    ]
    fit(tmp_path, *callbacks, vals=[3, 5, 4], max_epochs=3)
    assert names(tmp_path / "a") == ["epoch=0-step=2.ckpt", "epoch=2-step=6.ckpt"]
    every = [f"epoch={(step - 1) // 2}-step={step}.ckpt" for step in range(1, 7)]
    assert names(tmp_path / "b") == sorted([*every, "w-step=6.ckpt", "last.ckpt"])


@pytest.mark.parametrize("save_top_k", [1, 2])
def test_retention_waits_for_the_commit(disk, tmp_path, save_top_k):
    """While newer saves are on their way no older file is removed: at each moment ``save_top_k`` are there."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=save_top_k)
    counts = []

    def look(made):
        there = [name for name in names(tmp_path / "d") if name.endswith(".ckpt")]
        counts.append(len(there) >= min(save_top_k, len(cb.best_k_models)))
        assert all(os.path.exists(path) for path in cb.best_k_models)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = trainer(tmp_path, cb, Probe(on_train_batch_start=look, on_validation_start=look), max_epochs=6)
        made.fit(Scripted([6, 5, 4, 3, 2, 1]), loader(), loader())
    assert counts
    assert all(counts)
    assert len(names(tmp_path / "d")) == save_top_k
