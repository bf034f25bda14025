"""Exceptions and Ctrl-C: a file of its own name, never over a ranked one."""

from __future__ import annotations

import os

import pytest
import torch

from tests.support.lightning_cases import ModelCheckpoint, fit, names, step_of
from tests.support.lightning_parts import CrashAt, Probe


def _interrupted(folder, error, **words):
    cb = ModelCheckpoint(folder / "d", **{"monitor": "val_loss", "save_on_exception": True, **words})
    with pytest.raises((type(error), SystemExit)):  # the Trainer turns Ctrl-C into an exit
        fit(folder, cb, CrashAt(3, error), vals=[5, 4])
    return cb


ERRORS = pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)], ids=repr)


@ERRORS
@pytest.mark.parametrize(
    ("filename", "expected"),
    [(None, "exception-epoch=1-step=3.ckpt"), ("model", "exception-model.ckpt")],
)
def test_the_interrupted_state_is_saved(filename, expected, error, tmp_path):
    """An exception, Ctrl-C or exit leaves the state of its step under a name of its own."""
    cb = _interrupted(tmp_path, error, filename=filename)
    assert len(names(tmp_path / "d")) == 2
    assert step_of(tmp_path / "d" / expected) == 3
    assert step_of(cb.best_model_path) == 2
    assert float(cb.best_model_score) == 5.0
    assert list(cb.best_k_models) == [cb.best_model_path]


@ERRORS
def test_without_the_word_nothing_is_saved(error, tmp_path):
    """``save_on_exception`` is off unless asked for."""
    _interrupted(tmp_path, error, save_on_exception=False)
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt"]


def test_last_is_brought_up_to_the_interruption(tmp_path):
    """With ``save_last`` the interrupted state is ``last`` as well, from the same bytes."""
    cb = _interrupted(tmp_path, RuntimeError("boom"), save_last=True)
    assert step_of(cb.last_model_path) == 3
    assert os.path.samefile(cb.last_model_path, tmp_path / "d" / "exception-epoch=1-step=3.ckpt")


def test_two_interruptions_do_not_meet(tmp_path):
    """A second interruption at the same step gets a version and leaves the first file alone."""
    for _ in range(2):
        _interrupted(tmp_path, RuntimeError("boom"), filename="model", enable_version_counter=False)
    assert names(tmp_path / "d") == ["exception-model-v1.ckpt", "exception-model.ckpt", "model.ckpt"]


def test_a_state_that_is_saved_is_not_saved_again(tmp_path):
    """If the very step is already committed, no further file is written."""
    _interrupted(tmp_path, RuntimeError("boom"), monitor=None, every_n_train_steps=3)
    cb = ModelCheckpoint(tmp_path / "e", every_n_train_steps=3, save_on_exception=True)

    def crash(made):
        if made.global_step == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(tmp_path, cb, Probe(on_train_batch_start=crash))
    assert names(tmp_path / "e") == ["epoch=1-step=3.ckpt"]


def test_an_interrupted_run_resumes_from_its_file(tmp_path):
    """The file of an interruption resumes like any other, and is kept: it is no part of the ranking."""
    _interrupted(tmp_path, RuntimeError("boom"))
    source = tmp_path / "d" / "exception-epoch=1-step=3.ckpt"
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_on_exception=True)
    made = fit(tmp_path, cb, vals=[4, 3], max_epochs=3, ckpt_path=str(source))
    assert made.global_step == 6
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {6: 3.0}
    assert source.exists()


def test_a_crash_before_the_first_step_writes_nothing(tmp_path):
    """With no step taken there is nothing worth saving."""
    cb = ModelCheckpoint(tmp_path / "d", save_on_exception=True, save_last=True)

    def crash(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(tmp_path, cb, Probe(on_train_batch_start=crash))
    assert names(tmp_path / "d") == []


@pytest.mark.parametrize("hook", ["on_validation_batch_start", "on_train_epoch_end", "on_sanity_check_start"])
def test_a_crash_anywhere(hook, tmp_path):
    """A crash in a validation or a hook saves the state of that step; one in the sanity check nothing."""
    cb = ModelCheckpoint(tmp_path / "d", save_on_exception=True, every_n_epochs=9)

    def crash(made):
        if hook == "on_sanity_check_start" or not made.sanity_checking:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(tmp_path, cb, Probe(**{hook: crash}))
    expected = [] if hook == "on_sanity_check_start" else ["exception-epoch=0-step=2.ckpt"]
    assert names(tmp_path / "d") == expected


def test_a_crash_outside_a_fit_writes_nothing(tmp_path):
    """An exception in ``validate`` is none of the callback's business."""
    from tests.support.lightning_cases import Scripted, loader, trainer

    def crash(_):
        raise RuntimeError

    cb = ModelCheckpoint(tmp_path / "d", save_on_exception=True, save_last=True)
    with pytest.raises(RuntimeError):
        trainer(tmp_path, cb, Probe(on_validation_batch_start=crash)).validate(Scripted(), loader())
    assert names(tmp_path / "d") == []


def test_a_failing_save_does_not_hide_the_exception(tmp_path):
    """If the interrupted state cannot be saved, that is a warning, and the first error is the one raised."""

    class OddError(RuntimeError):
        pass

    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cb = ModelCheckpoint(blocked / "d", save_on_exception=True, every_n_epochs=9)
    with pytest.raises(OddError), pytest.warns(UserWarning, match="was not saved: Not a directory"):
        fit(tmp_path, cb, CrashAt(1, OddError("the first")))


def test_the_file_holds_the_weights_of_the_crash(tmp_path):
    """The weights in the file are those of the moment of the exception."""
    from tests.support.lightning_cases import Scripted

    model = Scripted()
    cb = ModelCheckpoint(tmp_path / "d", save_on_exception=True, every_n_epochs=9)
    with pytest.raises(RuntimeError):
        fit(tmp_path, cb, CrashAt(3), model=model)
    saved = torch.load(tmp_path / "d" / "exception-epoch=1-step=3.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["layer.weight"], model.layer.weight)
