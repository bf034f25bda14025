"""Saves that fail: full disks, forbidden folders; what was committed stays and attributes stay true."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import warnings

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from holdfast.errors import SaveError
from holdfast.lightning import CheckpointIO
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, names, quietly, step_of, steps
from tests.support.lightning_parts import Probe, forbidden_folder

LIMIT = 1 << 19


class Swelling(Scripted):
    """Its checkpoints outgrow half a megabyte in the epochs it is told."""

    def __init__(self, vals, *epochs):
        super().__init__(vals)
        self.epochs = epochs

    def on_save_checkpoint(self, checkpoint):
        if self.current_epoch in self.epochs:
            checkpoint["ballast"] = torch.zeros(2 * LIMIT, dtype=torch.uint8)


@contextlib.contextmanager
def small_files():
    """No file of this process may grow beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of half a megabyte; skips where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or not mount or not umount:
        pytest.skip("only root can mount a filesystem")
    command = [mount, "-t", "tmpfs", "-o", f"size={LIMIT}", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no filesystem can be mounted here")
    yield place
    subprocess.run([umount, str(place)], check=True)


def test_a_full_disk_stops_training(small_disk, tmp_path):
    """ENOSPC names the path, the cause and a cure; the old best is whole and nothing else is left behind."""
    cb = ModelCheckpoint(small_disk / "d", monitor="val_loss", save_last=True, on_error="raise")
    with pytest.raises(SaveError, match=r"epoch=1-step=4\.ckpt.*No space left on device.*free some space") as caught:
        fit(tmp_path, cb, model=Swelling([5, 4], 1), max_epochs=2)
    assert caught.value.errno == errno.ENOSPC
    assert names(small_disk / "d") == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert [step_of(small_disk / "d" / name) for name in names(small_disk / "d")] == [2, 2]
    _assert_true(cb, step=2, score=5.0)


def _assert_true(cb, step, score):
    """The attributes name what is there, all of it and nothing else."""
    _assert_best(cb, step, score)
    assert step_of(cb.last_model_path) == step


def _assert_best(cb, step, score):
    assert step_of(cb.best_model_path) == step
    assert float(cb.best_model_score) == score
    assert list(cb.best_k_models) == [cb.best_model_path]
    assert float(cb.current_score) == score


def test_a_file_limit_stops_training(tmp_path):
    """EFBIG in the middle of a write leaves no partial file and true attributes."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True, on_error="raise")
    with small_files(), pytest.raises(SaveError, match="File too large") as caught:
        fit(tmp_path, cb, model=Swelling([5, 4], 1), max_epochs=2)
    assert caught.value.path == str(tmp_path / "d" / "epoch=1-step=4.ckpt")
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt", "last.ckpt"]
    _assert_true(cb, step=2, score=5.0)


def test_training_goes_on_if_the_user_chose_so(tmp_path):
    """By default each failure is a warning, training is kept, and saves again when it can."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True)
    with small_files():
        made, messages = quietly(fit, tmp_path, cb, model=Swelling([5, 4, 3], 1), max_epochs=3)
    assert made.global_step == 6
    assert [text for text in messages if "epoch=1-step=4.ckpt was not saved: File too large" in text]
    assert names(tmp_path / "d") == ["epoch=2-step=6.ckpt", "last.ckpt"]
    _assert_true(cb, step=6, score=3.0)


def test_a_failed_last_save_is_warned_of(tmp_path):
    """A failure at the very end is warned of as well, and the attributes still name the earlier files."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True)
    with small_files():
        _, messages = quietly(fit, tmp_path, cb, model=Swelling([5, 4], 1, 2), max_epochs=2)
    assert [text for text in messages if "was not saved" in text]
    _assert_true(cb, step=2, score=5.0)


def test_a_constant_name_survives_a_failed_overwrite(tmp_path):
    """A save that would have written over its predecessor's name leaves the predecessor whole."""
    cb = ModelCheckpoint(tmp_path / "d", filename="model", enable_version_counter=False, on_error="raise")
    with small_files(), pytest.raises(SaveError):
        fit(tmp_path, cb, model=Swelling([5], 1), max_epochs=2)
    assert names(tmp_path / "d") == ["model.ckpt"]
    assert step_of(cb.best_model_path) == 2


def test_a_forbidden_folder(tmp_path):
    """A ``PermissionError`` stops training with the path and the cure, and no attribute is set."""
    folder = forbidden_folder(tmp_path)
    cb = ModelCheckpoint(folder, save_last=True, on_error="raise")
    with pytest.raises(SaveError, match=r"(?s)(not permitted|denied).*choose a directory") as caught:
        fit(tmp_path, cb)
    assert caught.value.path.startswith(folder)
    assert (cb.best_model_path, cb.last_model_path, cb.best_k_models) == ("", "", {})


def test_a_forbidden_folder_stops_training_in_the_end(tmp_path):
    """By default two failures are warned of; the third in a row, with no commit in between, stops the run."""
    cb = ModelCheckpoint(forbidden_folder(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(SaveError, match=r"failure 3 in a row.*max_failures=3"):
            fit(tmp_path, cb, max_epochs=9)
    said = [str(item.message) for item in caught if "was not saved" in str(item.message)]
    assert ["failure 1 of 3" in said[0], "failure 2 of 3" in said[1], len(said)] == [True, True, 2]
    assert cb.best_model_path == ""


def test_a_save_by_name_is_raised(tmp_path):
    """``save_checkpoint(trainer)`` raises its failure, whatever ``on_error`` says."""
    cb = ModelCheckpoint(tmp_path / "d", every_n_epochs=0, save_last=False)
    probe = Probe(on_train_epoch_end=cb.save_checkpoint)
    with small_files(), pytest.raises(SaveError, match="was not saved: File too large"):
        fit(tmp_path, cb, probe, model=Swelling([5], 0), max_epochs=1)


def test_the_older_name(tmp_path):
    """``on_save_error`` means ``on_error``; two different values are an error that names both."""
    assert ModelCheckpoint(on_save_error="raise").on_error == ModelCheckpoint(on_error="raise").on_save_error == "raise"
    for words in ({"on_error": "warn", "on_save_error": "raise"}, {"max_failures": 0}, {"on_damage": "no"}):
        with pytest.raises(MisconfigurationException, match="|".join(words)):
            ModelCheckpoint(**words)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_becomes_forbidden(tmp_path):
    """Rights that are taken away in the middle of a run harm nothing that is committed."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", on_error="raise")
    probe = Probe(on_train_epoch_start=lambda made: made.current_epoch and os.chmod(tmp_path / "d", 0o500))
    with pytest.raises(SaveError, match="denied"):
        fit(tmp_path, cb, probe, vals=[5, 4])
    assert step_of(cb.best_model_path) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_without_rights(tmp_path):
    """A process that loses its rights in the middle of a run harms nothing that is committed."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", on_error="raise")
    probe = Probe(on_train_epoch_start=lambda made: made.current_epoch and os.seteuid(65534))
    try:
        with pytest.raises(SaveError, match="denied"):
            fit(tmp_path, cb, probe, vals=[5, 4])
    finally:
        os.seteuid(0)
    assert step_of(cb.best_model_path) == 2
    assert steps(tmp_path / "d") == [2]


def test_a_folder_below_a_file(tmp_path):
    """A ``dirpath`` that runs through a file is an error that says so."""
    (tmp_path / "file").write_text("in the way")
    cb = ModelCheckpoint(tmp_path / "file" / "d", on_error="raise")
    with pytest.raises(SaveError, match=r"Not a directory.*a part of `dirpath` is a file"):
        fit(tmp_path, cb)
    assert (tmp_path / "file").read_text() == "in the way"


class Stubborn(CheckpointIO):
    """Removes nothing."""

    def remove_checkpoint(self, path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_removal_that_fails_is_warned_of(tmp_path):
    """An old file that cannot be removed is said, and does not stop the run."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    made, messages = quietly(fit, tmp_path, cb, vals=[5, 4, 3], max_epochs=3, plugins=[Stubborn()])
    assert made.global_step == 6
    assert len([text for text in messages if "epoch=0-step=2.ckpt could not be removed" in text]) == 1
    _assert_best(cb, step=6, score=3.0)


def test_what_cannot_be_pickled_is_a_save_error(tmp_path):
    """A state that cannot be saved names the path and the cause, and touches nothing."""

    class Odd(Scripted):
        def on_save_checkpoint(self, checkpoint):
            if self.current_epoch:
                checkpoint["odd"] = lambda: None

    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", on_error="raise")
    with pytest.raises(SaveError, match=r"epoch=1-step=4\.ckpt was not saved.*pickle"):
        fit(tmp_path, cb, model=Odd([5, 4]))
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt"]
    assert step_of(cb.best_model_path) == 2
