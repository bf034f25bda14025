"""What ``ckpt_path="last"`` finds where weights are saved alone, and what a kill leaves of older ones."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from holdfast.storage import RUN_LOCK
from tests.lightning import jobs_killed
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, loader, names, step_of, steps
from tests.support.lightning_models import trainer
from tests.support.ranks import start_ranks


def _weights(folder, name="last"):
    cb = ModelCheckpoint(folder, "weights-{step}", save_weights_only=True, save_last=True)
    cb.CHECKPOINT_NAME_LAST = name
    return cb


def test_a_test_uses_weights_alone(tmp_path):
    """``trainer.test(ckpt_path="last")`` loads the last weights, though training could not go on from them."""
    made = fit(tmp_path, _weights(tmp_path / "d"), max_epochs=2)
    expected = made.lightning_module.layer.weight.detach()
    model = Scripted()
    assert not torch.equal(model.layer.weight, expected)
    trainer(tmp_path, _weights(tmp_path / "d")).test(model, loader(), ckpt_path="last", verbose=False)
    assert torch.equal(model.layer.weight, expected)


def test_a_fit_says_that_weights_alone_are_too_little(tmp_path):
    """``fit(ckpt_path="last")`` with weights alone is Lightning's error, not a silent start from the beginning."""
    fit(tmp_path, _weights(tmp_path / "d"), max_epochs=1)
    before = names(tmp_path / "d")
    with pytest.raises(KeyError, match="weights"):
        fit(tmp_path, _weights(tmp_path / "d"), max_epochs=2, ckpt_path="last")
    assert names(tmp_path / "d") == before


@pytest.mark.parametrize("full_first", [True, False])
def test_a_full_last_comes_before_newer_weights(tmp_path, full_first):
    """Where two callbacks keep a ``last`` in one directory, "last" is the one that training can go on from."""

    def pair():
        full = ModelCheckpoint(tmp_path / "d", "full-{step}", save_last=True)
        full.CHECKPOINT_NAME_LAST = "full"
        both = [full, _weights(tmp_path / "d")]
        return both if full_first else both[::-1]

    fit(tmp_path, *pair(), max_epochs=2)
    assert {"full.ckpt", "last.ckpt"} <= set(names(tmp_path / "d"))
    made = fit(tmp_path, *pair(), max_epochs=3, ckpt_path="last")
    assert made.global_step == 6
    assert "loops" in torch.load(tmp_path / "d" / "full.ckpt", weights_only=True)
    assert step_of(tmp_path / "d" / "full.ckpt") == step_of(tmp_path / "d" / "last.ckpt") == 6


@pytest.mark.parametrize(("save_top_k", "source"), [(1, "epoch=1-step=4.ckpt"), (1, "last"), (0, "last")])
def test_a_last_that_a_kill_spared_is_removed(tmp_path, save_top_k, source):
    """Killed when a templated ``last`` was there and the one before it not yet gone: the resumed run removes it."""
    folder = str(tmp_path / "d")
    with start_ranks(1, jobs_killed.before_the_old_last_goes, folder, save_top_k, store=None) as run:
        (outcome,) = run.wait()
    assert outcome.signal == signal.SIGKILL, outcome
    ranked = ["epoch=1-step=4.ckpt"] if save_top_k else []
    assert names(folder) == sorted([RUN_LOCK, "epoch=0-last.ckpt", "epoch=1-last.ckpt", *ranked])
    assert set(steps(folder)) == {2, 4}
    cb = ModelCheckpoint(folder, monitor="val_loss", save_top_k=save_top_k, save_last=True)
    cb.CHECKPOINT_NAME_LAST = "{epoch}-last"
    path = source if source == "last" else os.path.join(folder, source)
    fit(tmp_path, cb, vals=[6, 7], max_epochs=4, ckpt_path=path)
    resumed_from = ["epoch=1-last.ckpt"] if source == "last" else []
    assert [name for name in names(folder) if "last" in name] == sorted([*resumed_from, "epoch=3-last.ckpt"])
    assert step_of(cb.last_model_path) == 8
