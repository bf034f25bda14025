"""Signals in a plain loop: who is heard, when, and what is put back."""

from __future__ import annotations

import faulthandler
import os
import signal

import pytest
import torch

from holdfast import Checkpointer, ConfigurationError
from holdfast.front import preemption
from tests.front.loops import names, step_of
from tests.support.signals import forget_listeners

USR1 = signal.SIGUSR1


@pytest.fixture(autouse=True)
def nobody_else_listens():
    """What other tests of this process have left open would keep each signal waiting for a step of theirs."""
    forget_listeners()


@pytest.fixture
def heard():
    """A handler of the user's own for SIGUSR1, which takes down the files that it finds."""
    calls = []

    def handler(number, frame):
        calls.append(handler.look())

    handler.look = list
    before = signal.signal(USR1, handler)
    yield handler, calls
    signal.signal(USR1, before)


def checkpointer(folder, **words):
    return Checkpointer(folder, model=torch.nn.Linear(1, 1), **words)


def send():
    os.kill(os.getpid(), USR1)


def test_the_users_handler_is_called_after_the_commit(tmp_path, heard):
    """It finds the file of the step, is called once, training goes on, and at the end it is back in its place."""
    handler, calls = heard
    handler.look = lambda: names(tmp_path)
    with checkpointer(tmp_path) as ckpt:
        ckpt.step()
        send()
        assert calls == []
        ckpt.step()
        assert calls == [["preempted-epoch=0-step=2.ckpt"]]
        ckpt.step()
        send()
        ckpt.step()
        assert calls[1:] == [["preempted-epoch=0-step=4.ckpt"]]  # the earlier one went with the commit of this
    assert step_of(tmp_path / "preempted-epoch=0-step=4.ckpt") == 4
    assert signal.getsignal(USR1) is handler
    assert preemption.asked == []


@pytest.mark.parametrize("say", ["end_validation", "end_epoch", "close"])
def test_any_boundary_is_one(tmp_path, heard, say):
    """A signal after the last step acts at the end of the validation, of the epoch, or at the close."""
    handler, calls = heard
    handler.look = lambda: names(tmp_path)
    ckpt = checkpointer(tmp_path, every_n_train_steps=100, save_last=True)
    ckpt.step()
    send()
    getattr(ckpt, say)()
    assert calls == [["last.ckpt"]]
    ckpt.close()


def test_before_the_first_step_it_acts_at_once(tmp_path, heard):
    """There is nothing to save yet, and nothing to wait for."""
    _, calls = heard
    with checkpointer(tmp_path) as ckpt:
        send()
        assert len(calls) == 1
        ckpt.resume()
    assert names(tmp_path) == []


def test_one_that_is_collected_swallows_no_signal(tmp_path, heard):
    """Without ``close`` the handler stays, and hands on at once when nobody is left to answer."""
    _, calls = heard
    checkpointer(tmp_path).step()
    send()
    assert len(calls) == 1


def test_several_all_save_first(tmp_path, heard):
    """The signal acts when each has saved; one that takes no step is waited for no longer than a step."""
    handler, calls = heard
    handler.look = lambda: (names(tmp_path / "a"), names(tmp_path / "b"))
    words = {"every_n_train_steps": 100}
    with checkpointer(tmp_path / "a", **words) as first, checkpointer(tmp_path / "b", **words) as second:
        first.step()
        second.step()
        send()
        first.step()
        assert calls == []
        second.step()
        file = "preempted-epoch=0-step=2.ckpt"
        assert calls == [([file], [file])]
        send()
        first.step()
        first.step()
        assert len(calls) == 2


def test_what_is_ignored_stays_ignored(tmp_path):
    """A signal that the program ignores is neither heard nor answered."""
    before = signal.signal(USR1, signal.SIG_IGN)
    try:
        with checkpointer(tmp_path) as ckpt:
            ckpt.step()
            assert signal.getsignal(USR1) is signal.SIG_IGN
            send()
            ckpt.step()
    finally:
        signal.signal(USR1, before)
    assert names(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells")
def test_a_handler_in_c_is_left_in_place(tmp_path):
    """``faulthandler`` still writes its stacks, and the signal does not end the run."""
    with open(tmp_path / "stacks", "w") as stacks:
        faulthandler.register(USR1, stacks)
        try:
            with checkpointer(tmp_path / "run") as ckpt:
                ckpt.step()
                send()
                ckpt.step()
        finally:
            faulthandler.unregister(USR1)
    assert "test_signals.py" in (tmp_path / "stacks").read_text()
    assert names(tmp_path / "run") == []


@pytest.mark.parametrize(
    "words", [{"save_on_signal": False}, {"save_on_signal": ()}, {"save_weights_only": True}], ids=str
)
def test_who_does_not_listen(tmp_path, heard, words):
    """With the word off, or where nobody could resume from what is saved, signals act at once."""
    _, calls = heard
    with checkpointer(tmp_path, **words) as ckpt:
        ckpt.step()
        send()
        assert len(calls) == 1


@pytest.mark.parametrize("wrong", ["SIGTERM", [signal.SIGKILL], [0], [signal.SIGSEGV], 15, None, ["x"]], ids=str)
def test_what_is_no_signal_to_wait_with(tmp_path, wrong):
    """A wrong value is refused by name, before anything is made."""
    with pytest.raises(ConfigurationError, match="save_on_signal"):
        checkpointer(tmp_path / "run", save_on_signal=wrong)
    assert not (tmp_path / "run").exists()


def test_a_save_that_fails_keeps_no_signal_from_acting(tmp_path, heard):
    """The failure is a warning, and the handler is called."""
    _, calls = heard
    (tmp_path / "file").write_text("in the way")
    ckpt = checkpointer(tmp_path / "file" / "run", every_n_train_steps=100)
    ckpt.step()
    send()
    with pytest.warns(UserWarning, match="not saved"):
        ckpt.step()
    ckpt.close()
    assert len(calls) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("asked", [False, True])
def test_an_exception_commits_what_is_on_its_way(tmp_path, error, asked):
    """Whatever ends the loop: the save in flight is committed, and with ``save_on_exception`` the last state, too."""
    words = {"every_n_train_steps": 2, "save_top_k": -1, "save_on_exception": asked}

    def loop():
        with checkpointer(tmp_path, **words) as ckpt:
            for _ in range(3):
                ckpt.step()
            raise error

    with pytest.raises(error):
        loop()
    assert names(tmp_path) == ["epoch=0-step=2.ckpt", *(["exception-epoch=0-step=3.ckpt"] if asked else [])]
