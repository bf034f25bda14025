"""Trainings that are really killed, at random moments and at system calls, and go on to the same weights."""

from __future__ import annotations

import pytest

from tests.crash.harness import Trainer, assert_sound, calls_on, leftovers, steps, survey
from tests.crash.training import WORDS
from tests.support.properties import FACTOR, chance

KILLED = -9


def assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole, more=1):
    """Resume, reach the weights of an uninterrupted run, and leave its checkpoints and nothing else."""
    done = trainer.run(folder, words)
    assert done.code == 0, done.acks
    assert done.acks[0]["missed"] == []
    assert done.digest == trainer.digests[words]
    assert leftovers(folder) == []
    assert_sound(folder, done, {})
    final = steps(folder)
    expected = whole(words)
    assert expected.items() <= final.items(), "a checkpoint of the uninterrupted run is missing"
    # A save whose retention was cut off may leave, at the very end, what no later commit could remove.
    assert len(final) <= len(expected) + more


@pytest.mark.parametrize("words", sorted(WORDS))
def test_a_run_with_checkpoints_has_the_weights_of_one_without(trainer, tmp_path, words):
    """Saving changes nothing in the training: the weights at the end are the same to the bit."""
    done = trainer.run(tmp_path / "run", words)
    assert (done.code, done.digest) == (0, trainer.digests[words])


@pytest.mark.parametrize("words", sorted(WORDS))
def test_killed_at_random_moments(trainer, tmp_path, whole, words):
    """SIGKILL at random moments, again and again until a run gets through: each time all is sound."""
    dice = chance(f"moments of {words}")
    for lap in range(3 * FACTOR):
        folder = tmp_path / str(lap)
        for _ in range(4):
            before = survey(folder)
            outcome = trainer.run(folder, words, kill_after=dice.uniform(0.002, 0.09))
            assert outcome.code in (0, KILLED)
            assert_sound(folder, outcome, before)
        assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole)


def kill_at(trainer, folder, words, point, whole):
    """Kill a fresh run right before one system call, check what is left, and let it finish."""
    name, number = point
    folder, outcome = trainer.reach(folder, words, inject=f"{name}:signal=KILL:when={number}")
    assert outcome.code == KILLED, f"{name} {number} was not reached"
    assert_sound(folder, outcome, {})
    assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole)


@pytest.mark.parametrize("words", sorted(WORDS))
def test_killed_at_system_calls(trainer, tmp_path, whole, points, words):
    """Killed right before system calls on the folder, of every kind and from begin to end: all is sound."""
    every = points(words)
    rare = [point for point in every if point[0] not in ("write", "close")]
    dice = chance(f"calls of {words}")
    chosen = {*dice.sample(rare, min(len(rare), 12 * FACTOR)), *dice.sample(every, 4)}
    for at, point in enumerate(sorted(chosen)):
        kill_at(trainer, tmp_path / str(at), words, point, whole)


@pytest.mark.long
@pytest.mark.parametrize("case", [(words, part) for words in sorted(WORDS) for part in range(8)], ids=str)
def test_killed_at_every_system_call(trainer, tmp_path, whole, points, case):
    """Killed right before each single system call on the folder in a whole run: all is sound."""
    words, part = case
    for at, point in enumerate(points(words)[part::8]):
        kill_at(trainer, tmp_path / str(at), words, point, whole)


@pytest.mark.parametrize("words", ["epochs", "steps"])
def test_killed_twice(trainer, tmp_path, whole, points, words):
    """Killed at a system call, and in the resumed run at another: what the first run had is still whole."""
    every = points(words)
    dice = chance(f"two calls of {words}")
    for lap in range(6 * FACTOR):
        folder = tmp_path / str(lap)
        for _ in range(2):
            before = survey(folder)
            name, number = dice.choice([point for point in every if point[0] not in ("close", "flock")])
            outcome = trainer.run(folder, words, inject=f"{name}:signal=KILL:when={number}")
            assert outcome.code in (0, KILLED)
            assert_sound(folder, outcome, before)
        assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole)


def test_a_wrong_saver_is_found_out(strace, tmp_path):
    """These tests can fail: a saver that writes under the final name is caught by every kill within a file."""
    wrong = Trainer(str(tmp_path), "--in-place")
    try:
        assert wrong.run(tmp_path / "whole", "epochs", trace=str(tmp_path / "log")).code == 0
        writes = [number for name, number in calls_on(str(tmp_path / "log"), tmp_path / "whole") if name == "write"]
        for number in writes[5:50:15]:
            folder = tmp_path / str(number)
            folder, outcome = wrong.reach(folder, "epochs", inject=f"write:signal=KILL:when={number}")
            assert outcome.code == KILLED
            with pytest.raises(AssertionError, match="is listed and damaged"):
                assert_sound(folder, outcome, {})
    finally:
        wrong.close()
