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
ENDED_BY_LIGHTNING = {signal.SIGINT: 1, signal.SIGTERM: 0}  # Lightning makes an exit of these


def told_step(outcome):
    return max((ack.get("step", 0) for ack in outcome.acks), default=0)


def newest(folder):
    return max(steps(folder).values(), default=0)


def delays(dice):
    """Times to wait before the signal, short and long ones: how fast a machine trains is not known."""
    while True:
        yield dice.uniform(0.01, dice.choice([0.05, 0.15, 0.5, 1.5]))


def interrupt(run, folder, number, *, dice, wanted):
    """Send the signal to run after run until that many were hit amid the training; return the last folder.

    Each of them has to save all the steps that it told of. A run that gets through is followed by a fresh one.
    """
    caught, lap, waits = 0, 0, delays(dice)
    for _ in range(wanted * 40):
        place = f"{folder}-{lap}"
        before = survey(place)
        outcome = run(place, kill_after=next(waits), by=number)
        assert outcome.code in (0, -number, ENDED_BY_LIGHTNING.get(number, 0)), outcome.acks
        assert_sound(place, outcome, before, rest=0)
        if outcome.digest is not None or told_step(outcome) == EPOCHS * BATCHES:
            lap += 1  # the last state of a whole run is kept, or not, as the words say
            continue
        if told_step(outcome):
            caught += 1
            assert newest(place) >= told_step(outcome), "a step was lost"
        if caught == wanted:
            return place
    pytest.fail("no signal came amid the training")


def plain(trainer, words):
    return lambda folder, **order: trainer.run(folder, "epochs", given=WORDS[words], **order)


def fit(trainer):
    return lambda folder, **order: trainer.run(folder, "fit", act="fit", given={"every_n_epochs": 1}, **order)


@pytest.mark.parametrize(("words", "number"), zip(sorted(WORDS) * 2, SIGNALS, strict=True), ids=str)
def test_a_plain_loop_that_is_interrupted_at_random_moments(trainer, tmp_path, words, number):
    """No finished step is lost, nothing unfinished is left, and the run ends with the weights of an undisturbed one."""
    run = plain(trainer, words)
    folder = interrupt(run, tmp_path / "run", number, dice=chance(f"{words} {number}"), wanted=2 * FACTOR)
    done = run(folder)
    assert (done.code, done.digest) == (0, trainer.digests["epochs"])
    assert leftovers(folder) == []


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=str)
@pytest.mark.parametrize("words", sorted(WORDS))
def test_a_plain_loop_that_is_interrupted_very_often(trainer, tmp_path, words, number):
    """The same, some hundred times."""
    run, dice = plain(trainer, words), chance(f"often {words} {number}")
    for lap in range(40):
        folder = interrupt(run, tmp_path / str(lap), number, dice=dice, wanted=3)
        done = run(folder)
        assert (done.code, done.digest) == (0, trainer.digests["epochs"])
        assert leftovers(folder) == []


def interrupt_fits(trainer, tmp_path, number, *, laps, wanted):
    run, dice = fit(trainer), chance(f"fits {number}")
    whole = run(tmp_path / "whole")
    for lap in range(laps):
        folder = interrupt(run, tmp_path / str(lap), number, dice=dice, wanted=wanted)
        done = run(folder)
        assert (done.code, done.digest) == (0, whole.digest)
        assert leftovers(folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM], ids=str)
def test_a_fit_that_is_interrupted_at_random_moments(trainer, tmp_path, number):
    """The same under Lightning, which has a meaning of its own for some of the signals."""
    interrupt_fits(trainer, tmp_path, number, laps=1, wanted=2)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS, ids=str)
def test_a_fit_that_is_interrupted_often(trainer, tmp_path, number):
    """The same with every signal, more often."""
    interrupt_fits(trainer, tmp_path, number, laps=10, wanted=3)


TWICE = """
import os, signal, sys, threading
import torch
from holdfast import Checkpointer

signal.alarm(60)  # a second Ctrl-C that does not act at once is waited for by the save, and it by the save
folder, way, left, real = sys.argv[1], sys.argv[2], threading.Event(), os.fsync


def fsync(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if asked and name.endswith(".tmp"):
        if way == "process":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
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


@pytest.mark.parametrize("way", ["process", "thread"])
def test_a_second_ctrl_c_acts_at_once(tmp_path, way):
    """It interrupts the wait for the first one's save, nothing more is saved, and what was committed is whole.

    Also where the system's wait does not notice it, since another thread heard it or it came a moment too early.
    """
    done = run(TWICE, tmp_path / "run", way)
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
