"""Real processes that get a signal: what they had done is committed, the signal acts, and the end is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.crash.harness import assert_sound, leftovers, steps, survey
from tests.crash.training import BATCHES, EPOCHS
from tests.support.properties import FACTOR, chance
from tests.support.running import PYTHONPATH

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2]
WORDS = {"last": {}, "own name": {"save_last": False}}
ENDED_BY_LIGHTNING = {signal.SIGINT: 1, signal.SIGTERM: 1}  # Lightning makes an exit of these


def told_step(outcome):
    return max((ack.get("step", 0) for ack in outcome.acks), default=0)


def newest(folder):
    return max(steps(folder).values(), default=0)


def interrupt(trainer, folder, words, number, *, dice, laps):
    """Send the signal to run after run of a plain loop; each has to save all the steps that it told of."""
    caught = 0
    for _ in range(laps):
        before = survey(folder)
        order = {"kill_after": dice.uniform(0.02, 0.12), "by": number, "given": WORDS[words]}
        outcome = trainer.run(folder, "epochs", **order)
        assert outcome.code in (0, -number), outcome.acks
        assert_sound(folder, outcome, before, rest=0)
        if outcome.code:
            caught += bool(told_step(outcome))
            # The last state of a whole run is kept, or not, as the words say.
            assert newest(folder) >= told_step(outcome) or told_step(outcome) == EPOCHS * BATCHES, "a step was lost"
    return caught


@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("words", sorted(WORDS))
def test_a_plain_loop_that_is_interrupted_at_random_moments(trainer, tmp_path, words, number):
    """No finished step is lost, nothing unfinished is left, and the run ends with the weights of an undisturbed one."""
    dice = chance(f"{words} {number}")
    caught = interrupt(trainer, tmp_path / "run", words, number, dice=dice, laps=4 * FACTOR)
    done = trainer.run(tmp_path / "run", "epochs", given=WORDS[words])
    assert (done.code, done.digest) == (0, trainer.digests["epochs"])
    assert leftovers(tmp_path / "run") == []
    assert caught, "no signal came amid the training"


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("words", sorted(WORDS))
def test_a_plain_loop_that_is_interrupted_very_often(trainer, tmp_path, words, number):
    """The same, some hundred times."""
    dice = chance(f"often {words} {number}")
    for lap in range(40):
        interrupt(trainer, tmp_path / str(lap), words, number, dice=dice, laps=4)
        done = trainer.run(tmp_path / str(lap), "epochs", given=WORDS[words])
        assert (done.code, done.digest) == (0, trainer.digests["epochs"])
        assert leftovers(tmp_path / str(lap)) == []


def fit(trainer, folder, **order):
    return trainer.run(folder, "fit", act="fit", given={"every_n_epochs": 1}, **order)


def interrupt_fits(trainer, tmp_path, number, laps):
    whole = fit(trainer, tmp_path / "whole")
    dice, caught = chance(f"fits {number}"), 0
    for _ in range(laps):
        outcome = fit(trainer, tmp_path / "run", kill_after=dice.uniform(0.05, 0.25), by=number)
        assert outcome.code in (0, -number, ENDED_BY_LIGHTNING.get(number, 0)), outcome.acks
        if outcome.code and told_step(outcome):
            caught += 1
            assert newest(tmp_path / "run") >= told_step(outcome), "a step was lost"
    done = fit(trainer, tmp_path / "run")
    assert (done.code, done.digest) == (0, whole.digest)
    assert leftovers(tmp_path / "run") == []
    return caught


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=str)
def test_a_fit_that_is_interrupted_at_random_moments(trainer, tmp_path, number):
    """The same under Lightning, which has a meaning of its own for some of the signals."""
    assert interrupt_fits(trainer, tmp_path, number, 4), "no signal came amid the training"


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_fit_that_is_interrupted_often(trainer, tmp_path, number):
    """The same with every signal, more often."""
    assert interrupt_fits(trainer, tmp_path, number, 30)


TWICE = """
import os, signal, sys, threading
import torch
from holdfast import Checkpointer

signal.alarm(60)  # a second Ctrl-C that does not act at once is waited for by the save, and it by the save
folder, left, real = sys.argv[1], threading.Event(), os.fsync


def fsync(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if asked and name.endswith(".tmp"):
        os.kill(os.getpid(), signal.SIGINT)
        left.wait()
    real(descriptor)


asked, model = [], torch.nn.Linear(2, 1)
try:
    with Checkpointer(folder, model=model, every_n_train_steps=2, save_top_k=-1, save_on_exception=True) as ckpt:
        ckpt.step()
        ckpt.step()
        ckpt.wait()
        ckpt.step()
        os.fsync = fsync
        asked.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        ckpt.end_validation()
except KeyboardInterrupt:
    print(sorted(name for name in os.listdir(folder) if name.endswith(".ckpt")), flush=True)
    left.set()
    sys.exit(7)
"""


def run(source, *arguments):
    command = [sys.executable, "-c", source, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_a_second_ctrl_c_acts_at_once(tmp_path):
    """It interrupts the wait for the first one's save, nothing more is saved, and what was committed is whole."""
    done = run(TWICE, tmp_path / "run")
    assert done.returncode == 7, done.stderr
    assert done.stdout.strip() == "['epoch=0-step=2.ckpt']"
    assert steps(tmp_path / "run")["epoch=0-step=2.ckpt"] == 2
    assert leftovers(tmp_path / "run") == [], "the end of the process waits for the save's thread"


GRACEFUL = """
import os, signal, sys
import torch
from torch.utils.data import DataLoader
from holdfast import Checkpointer

signal.alarm(60)
folder, number = sys.argv[1], int(sys.argv[2])
model = torch.nn.Linear(2, 1)
data = DataLoader(torch.rand(40, 2), batch_size=2, num_workers=2, multiprocessing_context="fork")
with Checkpointer(folder, model=model, every_n_epochs=1) as ckpt:
    for place, batch in enumerate(data):
        model(batch).sum().backward()
        if place == 3:
            os.killpg(os.getpid(), number)  # as a terminal does, and a scheduler
        ckpt.step()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1], ids=str)
def test_loader_workers_leave_the_signal_to_their_parent(tmp_path, number):
    """Sent to the whole group of processes, it ends no worker before the training has saved."""
    source = "import os; os.setsid()\n" + GRACEFUL
    done = run(source, tmp_path / "run", int(number))
    assert done.returncode == -number, done.stderr
    assert "DataLoader worker" not in done.stderr
    assert newest(tmp_path / "run") == 4
