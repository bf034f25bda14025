"""Signals to one rank or to all, at any moment: saved once by all, committed, and then it acts on every rank."""

from __future__ import annotations

import os
import signal
import time
from random import Random

import pytest

import holdfast
from tests.front.loops import step_of
from tests.ranks import jobs_pulse
from tests.support.ranks import start_ranks

TERM, USR1 = signal.SIGTERM, signal.SIGUSR1


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def ended(folder, size, draw, by=TERM, again=False):
    """Train, and send a signal to some ranks; return how each ended."""
    with start_ranks(size, jobs_pulse.preempted, folder, False) as run:
        assert all(run.heard(rank, "training") for rank in range(size))
        time.sleep(draw.uniform(0, 0.1))
        for rank in draw.sample(range(size), draw.randint(1, size)):
            run.kill(rank, by)
            time.sleep(draw.choice([0, 0, draw.uniform(0, 0.02)]))
            if again:
                run.kill(rank, by)
        return run.wait(timeout=40)


def check(folder, outcomes, by=TERM):
    """All ended by the signal, and one checkpoint is there, whole, of one step."""
    assert [outcome.signal for outcome in outcomes] == [by] * len(outcomes), "\n".join(map(str, outcomes))
    (name,) = names(folder)
    assert name == f"preempted-epoch=0-step={step_of(folder / name)}.ckpt"


@pytest.mark.parametrize("size", [2, 3])
def test_a_signal_to_some_ranks_ends_all(tmp_path, size):
    """SIGTERM to some ranks, twice: the state of one step is committed once, and every rank ends by the signal."""
    check(tmp_path, ended(tmp_path, size, Random(size), again=True))  # noqa: S311 - repeatable


@pytest.mark.long
def test_signals_at_random_moments(tmp_path):
    """The same for 40 draws of two to four ranks, of which signal, of the moment, and of who is sent it."""
    for seed in range(40):
        draw = Random(seed)  # noqa: S311 - repeatable
        by = draw.choice([TERM, USR1, signal.SIGUSR2])
        folder = tmp_path / str(seed)
        check(folder, ended(folder, draw.randint(2, 4), draw, by, again=draw.random() < 0.5), by)


def test_a_handler_that_returns_is_called_on_every_rank(tmp_path):
    """The signal came to rank 1 alone: each rank's handler finds the committed file, once, and training goes on."""
    with start_ranks(2, jobs_pulse.preempted, tmp_path, True) as run:
        assert run.heard(1, "training")
        run.kill(1, USR1)
        (first, heard), (second, other) = run.results()
    assert first == second
    assert heard == other
    assert len(heard) == 1
    assert any(name.startswith("preempted-") for name in heard[0])


def test_two_checkpointers_both_save_before_it_acts(tmp_path):
    """Each of two on the same ranks saves at its own step, on every rank, though one rank alone was sent the signal."""
    with start_ranks(2, jobs_pulse.two_preempted, tmp_path) as run:
        assert run.heard(1, "training")
        run.kill(1, TERM)
        outcomes = run.wait(timeout=40)
    for folder in ("a", "b"):
        check(tmp_path / folder, outcomes)


def test_a_signal_at_the_end_ends_all_alike(tmp_path):
    """It comes to rank 1 after the last step: the close tells the others, and all end by it."""
    with start_ranks(2, jobs_pulse.closed, tmp_path) as run:
        assert run.heard(1, "trained")
        run.kill(1, TERM)
        run.say("sent")
        outcomes = run.wait(timeout=40)
    assert [outcome.signal for outcome in outcomes] == [TERM] * 2
    assert names(tmp_path) == ["last.ckpt"]
    assert step_of(tmp_path / "last.ckpt") == 5


def test_ctrl_c_on_one_rank_interrupts_all(tmp_path):
    """``KeyboardInterrupt`` comes out of the same step on every rank, and the state of that step is there."""
    with start_ranks(2, jobs_pulse.interrupted, tmp_path) as run:
        assert run.heard(1, "training")
        run.kill(1, signal.SIGINT)
        first, second = run.results(timeout=40)
    assert first == second == (first[0], [f"preempted-epoch=0-step={first[0]}.ckpt"])


@pytest.mark.long
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("again", [0, 1])
def test_a_second_ctrl_c_on_one_rank_amid_the_save(tmp_path, sharded, again):
    """It interrupts that rank at once; the other one has an error or its own interrupt, and what was there is whole."""
    with start_ranks(2, jobs_pulse.interrupted_twice, tmp_path, sharded) as run:
        assert all(run.heard(rank, "training") for rank in range(2)), run.wait(timeout=40)
        run.kill(0, signal.SIGINT)
        run.kill(1, signal.SIGINT)
        assert run.heard(0, "saving")
        begun = time.monotonic()
        run.kill(again, signal.SIGINT)
        assert run.heard(again, "over")
        assert time.monotonic() - begun < 4.5  # it has not waited for the slow disk
        outcomes = run.wait(timeout=40)
    assert not any(outcome.late for outcome in outcomes)
    assert outcomes[again].value == "KeyboardInterrupt"
    assert outcomes[1 - again].value in {"KeyboardInterrupt", "RankError"}
    assert holdfast.verify(tmp_path / "last.ckpt").facts.step >= 1
