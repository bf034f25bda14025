"""What Lightning 2.6's class gets wrong, each defect as a scenario that holds for ours alone.

A scenario is given the class and an empty folder and tells whether the promise was kept. Running it on
the stock class as well proves that it looks at the defect and not past it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from datetime import timedelta

import fsspec
import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from tests.support.lightning_cases import (
    ModelCheckpoint,
    Scripted,
    Stock,
    fit,
    names,
    quietly,
    step_of,
)
from tests.support.lightning_parts import CrashAt, Manual, Probe, forbidden_folder


def last_is_the_newest_epoch(cls, folder):
    """D1: ``last.ckpt`` is the state of the last epoch, though the ranking kept the first."""
    cb = cls(dirpath=folder / "d", monitor="val_loss", save_last=True)
    fit(folder, cb, vals=[5, 6, 7], max_epochs=3)
    return step_of(folder / "d" / "last.ckpt") == 6


def last_needs_no_ranking(cls, folder):
    """D1: with ``save_top_k=0`` there is a ``last.ckpt`` after each epoch, not only at the end."""
    cb = cls(dirpath=folder / "d", save_top_k=0, save_last=True)
    seen = []
    probe = Probe(on_train_epoch_start=lambda _: seen.append(names(folder / "d")))
    fit(folder, cb, probe, max_epochs=3)
    return seen == [[], ["last.ckpt"], ["last.ckpt"]]


def scores_are_of_their_own_model(cls, folder):
    """D2: each step-triggered file is ranked by the validation of that very model."""
    cb = cls(dirpath=folder / "d", monitor="val_loss", save_top_k=-1, every_n_train_steps=2)
    fit(folder, cb, vals=[5, 4, 3], max_epochs=3)
    scores = {step_of(path): float(score) for path, score in cb.best_k_models.items()}
    return scores == {2: 5.0, 4: 4.0, 6: 3.0}


def the_true_best_is_found(cls, folder):
    """D2: with two validations an epoch the best one is recorded, and with its own step."""
    cb = cls(dirpath=folder / "d", monitor="val_loss", every_n_train_steps=2)
    fit(folder, cb, vals=[6, 5, 3, 4], batches=4, val_check_interval=2, max_epochs=2)
    return float(cb.best_model_score) == 3.0 and step_of(cb.best_model_path) == 6


def a_missing_monitor_is_said(cls, folder):
    """D3: a step trigger whose metric is never logged warns, naming it, and only once."""
    cb = cls(dirpath=folder / "d", monitor="nope", every_n_train_steps=1)
    _, messages = quietly(fit, folder, cb, max_epochs=2)
    return len([text for text in messages if "'nope'" in text]) == 1


def the_best_outlives_a_crash(cls, folder):
    """D4: the file of an interrupted run is not written over the best one."""
    cb = cls(dirpath=folder / "d", filename="model", monitor="val_loss", save_on_exception=True)
    with pytest.raises(RuntimeError, match="scripted"):
        fit(folder, cb, CrashAt(step=3), vals=[5, 4], max_epochs=2)
    return step_of(cb.best_model_path) == 2


class _Swelling(Scripted):
    """Its checkpoints outgrow half a megabyte from the given epoch on."""

    def __init__(self, vals, from_epoch):
        super().__init__(vals)
        self.from_epoch = from_epoch

    def on_save_checkpoint(self, checkpoint):
        if self.current_epoch >= self.from_epoch:
            checkpoint["ballast"] = torch.zeros(1 << 20, dtype=torch.uint8)


@contextlib.contextmanager
def file_size_limit(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _stops(cls):
    """The word with which ours stops at a failed save, as the stock class does."""
    return {"on_error": "raise"} if cls is ModelCheckpoint else {}


def a_full_disk_leaves_true_attributes(cls, folder):
    """D5: after a failed save the old best is there, is tracked, and is all that is tracked."""
    cb = cls(dirpath=folder / "d", monitor="val_loss", **_stops(cls))
    with file_size_limit(1 << 19), pytest.raises(OSError, match=r"(?i)file too large"):
        fit(folder, cb, model=_Swelling([5, 4], from_epoch=1), max_epochs=2)
    old = str(folder / "d" / "epoch=0-step=2.ckpt")
    return (
        cb.best_model_path == old and list(cb.best_k_models) == [old] and names(folder / "d") == ["epoch=0-step=2.ckpt"]
    )


def a_forbidden_folder_stops_training(cls, folder):
    """D6: a ``PermissionError`` is not swallowed, and no attribute names a file that is not there."""
    cb = cls(dirpath=forbidden_folder(folder), **_stops(cls))
    try:
        fit(folder, cb)
    except OSError as error:
        return str(cb.dirpath) in str(error) and cb.best_model_path == ""
    return False


def a_remote_source_survives(cls, folder):
    """D7: a run that resumes from another run's remote file never removes it."""
    root = f"memory://{folder.name}-{cls.__module__}"
    first = cls(dirpath=f"{root}/one")
    fit(folder, first, max_epochs=1)
    source = first.best_model_path
    fit(folder, cls(dirpath=f"{root}/two"), max_epochs=3, ckpt_path=source)
    return fsspec.filesystem("memory").exists(source)


def a_remote_source_in_the_same_folder_survives(cls, folder):
    """D7: nor does a run that goes on in the same remote directory."""
    root = f"memory://{folder.name}-{cls.__module__}-same"
    first = cls(dirpath=root)
    fit(folder, first, max_epochs=1)
    source = first.best_model_path
    fit(folder, cls(dirpath=root), max_epochs=3, ckpt_path=source)
    return fsspec.filesystem("memory").exists(source)


class _GatedIO(TorchCheckpointIO):
    """Writes nothing before it is let."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Semaphore(0)

    def save_checkpoint(self, *arguments, **options):
        self.gate.acquire()
        super().save_checkpoint(*arguments, **options)


def an_asynchronous_save_counts_when_it_is_there(cls, folder):
    """D8: with ``AsyncCheckpointIO`` the best path is always a file, and one file is always left."""
    cb, io = cls(dirpath=folder / "d", monitor="val_loss"), _GatedIO()
    broken = []

    def look(trainer):
        if trainer.global_step == 4:
            io.gate.release()
            _wait_for(folder / "d" / "epoch=0-step=2.ckpt")
        if cb.best_model_path and not os.path.exists(cb.best_model_path):
            broken.append("the best path names nothing")
        if trainer.global_step >= 4 and not names(folder / "d"):
            broken.append("nothing is left")

    probe = Probe(on_train_batch_start=look, on_train_end=lambda _: io.gate.release(9))
    fit(folder, cb, probe, vals=[5, 4, 3, 2], max_epochs=4, plugins=[AsyncCheckpointIO(io)])
    return not broken and names(folder / "d") == [os.path.basename(cb.best_model_path)]


def _wait_for(path):
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def time_triggers_know_manual_optimization(cls, folder):
    """D12: a time interval saves under manual optimization as well."""
    cb = cls(dirpath=folder / "d", train_time_interval=timedelta(0), save_top_k=-1)
    fit(folder, cb, model=Manual(), max_epochs=1)
    return [step_of(folder / "d" / name) for name in names(folder / "d")] == [1, 2]


def no_attribute_is_magic(cls, folder):
    """D12: what a module calls ``saved_models`` and ``layer`` is never put into the checkpoint."""
    model = Manual()
    model.saved_models = {0: {"weight": torch.full((2, 4), 7.0), "bias": torch.zeros(2)}}
    cb = cls(dirpath=folder / "d", every_n_train_steps=2)
    fit(folder, cb, model=model, max_epochs=1)
    saved = torch.load(cb.best_model_path, weights_only=True)["state_dict"]
    return torch.equal(saved["layer.weight"], model.layer.weight)


def a_dry_run_writes_nothing(cls, folder):
    """D13: ``fast_dev_run`` leaves no file, whatever ``save_last`` says."""
    fit(folder, cls(dirpath=folder / "d", save_last=True), fast_dev_run=True)
    return names(folder / "d") == []


def last_is_not_any_name_that_begins_so(cls, folder):
    """D14: ``ckpt_path="last"`` passes over a file whose name only begins like ``last``."""
    fit(folder, cls(dirpath=folder / "d", save_last=True), max_epochs=1)
    (folder / "d" / "lastXgarbage.ckpt").write_bytes(b"garbage")
    try:
        resumed = fit(folder, cls(dirpath=folder / "d", save_last=True), max_epochs=2, ckpt_path="last")
    except Exception:  # noqa: BLE001 - whatever the stock class makes of the garbage
        return False
    return resumed.global_step == 4


def last_may_have_a_template(cls, folder):
    """D14: ``ckpt_path="last"`` finds the file of a template such as ``{epoch}-last``."""

    class Named(cls):
        CHECKPOINT_NAME_LAST = "{epoch}-last"

    fit(folder, Named(dirpath=folder / "d", save_last=True, save_top_k=0), max_epochs=2)
    started = []
    probe = Probe(on_train_start=lambda trainer: started.append(trainer.global_step))
    fit(folder, Named(dirpath=folder / "d", save_last=True), probe, max_epochs=3, ckpt_path="last")
    return started == [4]


def a_deferred_save_is_made(cls, folder):
    """D16: a step save that waits for the validation is made when the validation has ended."""
    cb = cls(dirpath=folder / "d", monitor="val_loss", every_n_train_steps=2)
    fit(folder, cb, vals=[5], max_epochs=1)
    return {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {2: 5.0}


def a_deferred_save_waits_no_longer(cls, folder):
    """D16: nor does it go on waiting when saves happen at the end of the training epoch."""
    cb = cls(
        dirpath=folder / "d",
        monitor="val_loss",
        every_n_train_steps=2,
        save_top_k=-1,
        save_on_train_epoch_end=True,
    )
    fit(folder, cb, vals=[5, 4], max_epochs=2)
    return len(names(folder / "d")) == 2 and not getattr(cb, "_defer_save_until_validation", False)


SCENARIOS = [
    pytest.param(last_is_the_newest_epoch, id="D1-last"),
    pytest.param(last_needs_no_ranking, id="D1-no-ranking"),
    pytest.param(scores_are_of_their_own_model, id="D2-scores"),
    pytest.param(the_true_best_is_found, id="D2-best"),
    pytest.param(a_missing_monitor_is_said, id="D3"),
    pytest.param(the_best_outlives_a_crash, id="D4"),
    pytest.param(a_full_disk_leaves_true_attributes, id="D5"),
    pytest.param(a_forbidden_folder_stops_training, id="D6"),
    pytest.param(a_remote_source_survives, id="D7-other-run"),
    pytest.param(a_remote_source_in_the_same_folder_survives, id="D7-same-run"),
    pytest.param(an_asynchronous_save_counts_when_it_is_there, id="D8"),
    pytest.param(time_triggers_know_manual_optimization, id="D12-time"),
    pytest.param(no_attribute_is_magic, id="D12-magic"),
    pytest.param(a_dry_run_writes_nothing, id="D13"),
    pytest.param(last_is_not_any_name_that_begins_so, id="D14-garbage"),
    pytest.param(last_may_have_a_template, id="D14-template"),
    pytest.param(a_deferred_save_is_made, id="D16-made"),
    pytest.param(a_deferred_save_waits_no_longer, id="D16-flag"),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_holds_for_ours(scenario, tmp_path):
    """Each promise is kept by holdfast's class."""
    assert scenario(ModelCheckpoint, tmp_path)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_does_not_hold_for_the_stock_class(scenario, tmp_path):
    """The same scenario fails on Lightning's class: the test sees the defect."""
    assert issubclass(Stock, pl.Callback)
    assert not scenario(Stock, tmp_path)
