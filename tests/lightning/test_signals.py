"""Signals under Lightning: saved and committed before Lightning, or anybody, acts on them."""

from __future__ import annotations

import os
import signal

import lightning.pytorch as pl
import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from holdfast import newest
from tests.crash.fitting import Loader, Model
from tests.crash.training import digest
from tests.support.lightning_cases import ModelCheckpoint, fit, names, step_of
from tests.support.lightning_parts import Probe
from tests.support.signals import forget_listeners


class SendAt:
    """Sends a signal in the middle of a batch, once."""

    def __init__(self, number, step=3):
        self.number, self.step = number, step

    def __call__(self, trainer):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def nobody_else_listens():
    """What other tests of this process have left open would keep each signal waiting for a step of theirs."""
    forget_listeners()


@pytest.fixture(autouse=True)
def _restored():
    """Put every handler back that a test or the Trainer has changed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SIGTERMException), (signal.SIGINT, SystemExit)])
@pytest.mark.parametrize(("save_last", "expected"), [(None, "preempted-epoch=0-step=4.ckpt"), (True, "last.ckpt")])
def test_lightning_acts_after_the_commit(tmp_path, number, error, save_last, expected):
    """SIGTERM and Ctrl-C end the fit as they do without us, the batch's state committed; ``"last"`` resumes it."""
    words, before = {"save_last": save_last, "save_on_exception": True}, signal.getsignal(signal.SIGTERM)
    cb = ModelCheckpoint(tmp_path / "d", **words)
    with pytest.raises(error):
        fit(tmp_path, cb, Probe(on_train_batch_start=SendAt(number)), batches=5, validate=False)
    assert names(tmp_path / "d") == [expected]
    assert step_of(tmp_path / "d" / expected) == 4
    again = fit(tmp_path, ModelCheckpoint(tmp_path / "d", **words), batches=5, validate=False, ckpt_path="last")
    assert again.global_step == 10
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_users_handler_is_called_after_the_commit(tmp_path):
    """It finds the file, the fit goes on, and in the end the handler is back in its place."""
    found = []

    def handler(number, frame):
        found.append(names(tmp_path / "d"))

    signal.signal(signal.SIGUSR1, handler)
    cb = ModelCheckpoint(tmp_path / "d")
    made = fit(tmp_path, cb, Probe(on_train_batch_start=SendAt(signal.SIGUSR1)), batches=5, validate=False)
    assert found == [["preempted-epoch=0-step=4.ckpt"]]
    assert made.global_step == 10
    assert names(tmp_path / "d") == ["epoch=1-step=10.ckpt"]
    assert signal.getsignal(signal.SIGUSR1) is handler


def test_accumulated_gradients_are_waited_for(tmp_path):
    """No state is saved that lacks gradients which the next step needs."""
    found = []
    signal.signal(signal.SIGUSR1, lambda *_: found.append(names(tmp_path / "d")))
    probe = Probe(on_train_batch_start=SendAt(signal.SIGUSR1, 1))
    fit(tmp_path, ModelCheckpoint(tmp_path / "d"), probe, batches=9, validate=False, accumulate_grad_batches=3)
    assert found[0] == ["preempted-epoch=0-step=2.ckpt"]


def test_slurm_still_requeues(tmp_path, monkeypatch):
    """Lightning's own handler for SLURM saves its file and requeues the job, once ours is committed."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/requeued; ls {tmp_path}/d >> {tmp_path}/requeued\n'
    )
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    values = {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    probe = Probe(on_train_batch_start=SendAt(signal.SIGUSR1))
    cb = ModelCheckpoint(tmp_path / "d")
    plugin = SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR1)
    fit(tmp_path, cb, probe, batches=5, validate=False, plugins=[plugin])
    assert (tmp_path / "requeued").read_text().split("\n")[:2] == ["requeue 77", "preempted-epoch=0-step=4.ckpt"]
    assert step_of(tmp_path / "hpc_ckpt_1.ckpt") == 4


def test_a_wrong_value_is_lightnings_error(tmp_path):
    """It can be caught as a wrong argument under Lightning."""
    from holdfast.lightning import MisconfigurationError

    with pytest.raises(MisconfigurationError, match="save_on_signal"):
        ModelCheckpoint(tmp_path, save_on_signal="SIGTERM")


@pytest.mark.parametrize("first", [3, 4])
def test_two_resumes_in_a_row_come_to_the_same_weights(tmp_path, first):
    """Interrupted at the last batch of an epoch, or before it, and amid the next: no batch is seen twice."""

    def train(folder, *, at=None):
        def stop(trainer):
            if at is not None and trainer.global_step == at - 1:
                os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, _end)
        told = []
        model = Model(told.append)
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Probe(on_train_batch_start=stop), ModelCheckpoint(folder)],
        )
        try:
            trainer.fit(model, Loader(), ckpt_path=newest(folder))
        except _EndError:
            return None
        return digest(model.net)

    whole = train(tmp_path / "whole")
    assert train(tmp_path / "cut", at=first) is None
    assert train(tmp_path / "cut", at=6) is None
    assert train(tmp_path / "cut") == whole


class _EndError(Exception):
    """The user's own meaning of the signal."""


def _end(number, frame):
    raise _EndError
