"""Saves that fail, and exceptions in the loop."""

from __future__ import annotations

import errno
import os
import pickle
import threading

import pytest
import torch

import holdfast
from holdfast import Checkpointer, SaveError
from holdfast.storage import local
from tests.front.loops import Loop, names, step_of


@pytest.fixture
def broken_disk(monkeypatch):
    """Make every fsync fail as a full disk does, until told otherwise."""
    state = {"broken": False}
    real = os.fsync

    def fsync(descriptor):
        if state["broken"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(local.os, "fsync", fsync)
    return state


def test_a_failed_save_stops_the_training_and_harms_nothing(tmp_path, broken_disk):
    """``on_error="raise"``: a save that fails raises path, cause and cure; files and attributes stay true."""
    loop = Loop()
    ckpt = loop.checkpointer(tmp_path, monitor="val_loss", save_last=True, on_error="raise")
    ckpt.step()
    ckpt.end_epoch({"val_loss": 2.0})
    before = names(tmp_path), ckpt.best_model_path, ckpt.last_model_path
    broken_disk["broken"] = True
    ckpt.step()
    with pytest.raises(SaveError, match=r"epoch=1-step=2\.ckpt was not saved: No space left.*save_top_k") as caught:
        ckpt.end_epoch({"val_loss": 1.0})
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.path == str(tmp_path / "epoch=1-step=2.ckpt")
    assert (names(tmp_path), ckpt.best_model_path, ckpt.last_model_path) == before
    assert holdfast.verify(ckpt.best_model_path)


def test_going_on_after_a_failed_save(tmp_path, broken_disk):
    """By default a failed save is a warning with the same words, and later saves work."""
    ckpt = Loop().checkpointer(tmp_path, save_last=True)
    broken_disk["broken"] = True
    ckpt.step()
    with pytest.warns(UserWarning, match=r"epoch=0-step=1\.ckpt was not saved"):
        ckpt.end_epoch()
    assert names(tmp_path) == []
    assert (ckpt.best_model_path, ckpt.last_model_path) == ("", "")
    broken_disk["broken"] = False
    ckpt.step()
    ckpt.end_epoch()
    assert names(tmp_path) == ["epoch=1-step=2.ckpt", "last.ckpt"]


def test_a_second_name_that_fails(tmp_path, monkeypatch):
    """When ``last`` cannot be linked, the ranked file stands, and the attributes tell of it and of the old last."""
    ckpt = Loop().checkpointer(tmp_path, save_last=True, save_top_k=-1)
    ckpt.step()
    ckpt.end_epoch()

    def refuse(*arguments):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(local.os, "link", refuse)
    ckpt.step()
    with pytest.warns(UserWarning, match=r"last\.ckpt was not saved"):
        ckpt.end_epoch()
    assert names(tmp_path) == ["epoch=0-step=1.ckpt", "epoch=1-step=2.ckpt", "last.ckpt"]
    assert step_of(ckpt.last_model_path) == 1
    assert step_of(ckpt.best_model_path) == 2


def test_a_state_that_cannot_be_pickled(tmp_path):
    """A state with a lock in it fails as a SaveError that says why; nothing is left behind."""

    class Odd:
        def state_dict(self):
            return {"lock": threading.Lock()}

        def load_state_dict(self, state):
            pass

    ckpt = Checkpointer(tmp_path, stateful={"odd": Odd()}, on_error="raise")
    ckpt.step()
    with pytest.raises(SaveError, match=r"was not saved: TypeError.*lock"):
        ckpt.end_epoch()
    assert names(tmp_path) == []


def interrupted(folder, error, *, after=(), **words):
    """Train a step and an epoch's end, do what comes after, and raise within the checkpointer's block."""
    with Loop().checkpointer(folder, **words) as ckpt:
        ckpt.step()
        ckpt.end_epoch()
        for act in after:
            act(ckpt)
        raise error


def test_an_exception_in_the_loop(tmp_path):
    """With ``save_on_exception`` the interrupted state gets a file of its own name, and the exception goes on."""
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path, KeyboardInterrupt(), after=[Checkpointer.step], save_on_exception=True)
    assert names(tmp_path) == ["epoch=0-step=1.ckpt", "exception-epoch=1-step=2.ckpt"]
    start = Loop().checkpointer(tmp_path).resume()
    assert (start.step, start.path) == (2, str(tmp_path / "exception-epoch=1-step=2.ckpt"))


def test_no_file_for_an_exception_without_need(tmp_path):
    """Nothing is saved at an exception that was not asked for, nor for a state that is saved already."""
    with pytest.raises(ValueError, match="mine"):
        interrupted(tmp_path / "a", ValueError("mine"), after=[Checkpointer.step])
    with pytest.raises(ValueError, match="mine"):
        interrupted(tmp_path / "b", ValueError("mine"), save_on_exception=True)
    assert names(tmp_path / "a") == names(tmp_path / "b") == ["epoch=0-step=1.ckpt"]


def test_the_users_exception_is_not_replaced(tmp_path, broken_disk):
    """If saving at an exception fails too, the user's exception comes out, and the failed save is a warning."""

    def break_disk(_):
        broken_disk["broken"] = True

    after = [Checkpointer.step, break_disk]
    with pytest.warns(UserWarning, match="was not saved"), pytest.raises(ZeroDivisionError):
        interrupted(tmp_path, ZeroDivisionError(), after=after, save_on_exception=True)
    assert names(tmp_path) == ["epoch=0-step=1.ckpt"]


def test_a_removal_that_fails_is_a_warning(tmp_path, monkeypatch):
    """An old checkpoint that cannot be removed is named in a warning; the save has succeeded."""
    ckpt = Loop().checkpointer(tmp_path)
    ckpt.step()
    ckpt.end_epoch()

    def refusing(real):
        def refuse(path, *arguments, **options):
            if str(path).endswith(".ckpt"):
                raise PermissionError(errno.EACCES, "no")
            real(path, *arguments, **options)

        return refuse

    for name in ("unlink", "rename"):
        monkeypatch.setattr(local.os, name, refusing(getattr(os, name)))
    ckpt.step()
    with pytest.warns(UserWarning, match=r"epoch=0-step=1\.ckpt could not be removed"):
        ckpt.end_epoch()
    assert ckpt.best_model_path == str(tmp_path / "epoch=1-step=2.ckpt")


def test_a_directory_that_is_a_file(tmp_path):
    """A ``dirpath`` that is a file is an error that names it and the cure."""
    (tmp_path / "run").write_text("mine")
    ckpt = Checkpointer(tmp_path / "run", model=torch.nn.Identity(), on_error="raise")
    ckpt.step()
    with pytest.raises(SaveError, match=r"run.*dirpath"):
        ckpt.end_epoch()
    assert (tmp_path / "run").read_text() == "mine"


def test_the_error_survives_pickling():
    """A SaveError that travels between processes keeps its message, path and number."""
    error = pickle.loads(pickle.dumps(SaveError("text", path="p", errno=28)))  # noqa: S301 - our own bytes
    assert (str(error), error.path, error.errno) == ("text", "p", 28)
