"""Every state that a power cut may leave of a Trainer's folder, with two callbacks in it."""

from __future__ import annotations

import os

import pytest
import torch

from holdfast.lightning import ModelCheckpoint
from holdfast.testing import power
from tests.crash.counts import count
from tests.crash.harness import leftovers
from tests.crash.power_scenarios import RUN, watch
from tests.crash.promises import Promises, assert_there, listed
from tests.support.lightning_models import Scripted, loader, trainer

SCORES = (5.0, 3.0, 4.0, 2.0, 1.0, 0.5)


def fit(folder, epochs, ckpt_path=None, done=0):
    best = {"monitor": "val_loss", "save_top_k": 1, "save_last": True, "filename": "best-{epoch}"}
    every = {"save_top_k": -1, "every_n_epochs": 2, "filename": "every-{epoch}"}
    callbacks = [ModelCheckpoint(dirpath=os.path.join(folder, RUN), **words) for words in (best, every)]
    runner = trainer(folder, *callbacks, max_epochs=epochs, num_sanity_val_steps=0)
    runner.fit(Scripted(SCORES[done:]), loader(), loader(), ckpt_path=ckpt_path)
    return runner, callbacks


def scenario(folder):
    torch.set_num_threads(1)
    watch()
    fit(folder, 4)


def assert_kept(folder, promises):
    """Look at the folder, resume as Lightning's users do, and look again."""
    run = os.path.join(folder, RUN)
    before = assert_there(run, promises)
    steps = [step for step, _ in before.values()]
    lasts = [step for name, (step, _) in before.items() if name.startswith("last")]
    runner, (best, _) = fit(folder, max(steps, default=0) // 2 + 1, "last" if lasts else None)
    assert runner.global_step == max(steps, default=0) + 2
    assert leftovers(run) == []
    assert max(step for step, _ in listed(run).values()) == runner.global_step
    assert os.path.exists(best.best_model_path)
    assert os.path.exists(best.last_model_path)


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@pytest.mark.filterwarnings("ignore")
def test_every_state_of_a_trainer(tmp_path, place):
    """With two of Lightning's callbacks, too, what was committed is there, and ``ckpt_path="last"`` goes on from it."""
    states = list(power.record(scenario, tmp_path / "recorded").states())
    for state in states:
        state.write(place)
        try:
            assert_kept(place, Promises.of(state.marks))
        except Exception as error:
            message = f"{error}\n{state}"
            raise AssertionError(message) from error
    count("states after a power cut", len(states))
