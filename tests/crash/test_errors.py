"""System calls that fail in a real process: the error comes out, nothing committed is harmed, the next run goes on."""

from __future__ import annotations

import errno

import pytest

from tests.crash.harness import FAILED, assert_sound, leftovers, survey
from tests.crash.test_kill import assert_finishes_as_if_nothing_had_happened
from tests.support.properties import FACTOR, chance

ERRORS = {
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "EACCES", "ENOSPC"),
    "link": ("EIO", "ENOSPC"),
}


def fail_at(trainer, folder, point, error, whole):
    """Let one call fail in a fresh run; the error must name the cause, and a second run go on."""
    words, (name, number) = "epochs", point
    folder, outcome = trainer.reach(folder, words, inject=f"{name}:error={error}:when={number}")
    assert outcome.code == FAILED, (point, outcome.acks)
    assert outcome.error["errno"] == getattr(errno, error)
    assert str(folder) in outcome.error["error"]
    assert_sound(folder, outcome, {})
    assert leftovers(folder) == []
    assert_finishes_as_if_nothing_had_happened(trainer, folder, words, whole)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_calls_that_fail(trainer, tmp_path, whole, points, name):
    """A failing write, fsync, rename or link is a SaveError with its number and the path; nothing is left behind."""
    of_name = [point for point in points("epochs") if point[0] == name]
    dice = chance(f"errors of {name}")
    for at, point in enumerate(dice.sample(of_name, min(len(of_name), 5 * FACTOR))):
        fail_at(trainer, tmp_path / str(at), point, dice.choice(ERRORS[name]), whole)


def test_interrupted_calls_are_repeated(trainer, tmp_path, points):
    """A write that a signal interrupts is done again: the run does not notice."""
    for number in [number for name, number in points("epochs") if name == "write"][:60:12]:
        folder = tmp_path / str(number)
        outcome = trainer.run(folder, "epochs", inject=f"write:error=EINTR:when={number}")
        assert (outcome.code, outcome.digest) == (0, trainer.digests["epochs"])
        assert_sound(folder, outcome, {})


@pytest.mark.parametrize("lie", ["0", "1"])
def test_writes_that_lie(trainer, tmp_path, whole, points, lie):
    """A write that claims success without writing is found out before the commit."""
    large = [number for name, number in points("epochs") if name == "write"][1::40]
    for number in large[: 3 * FACTOR]:
        folder = tmp_path / str(number)
        folder, outcome = trainer.reach(folder, "epochs", inject=f"write:retval={lie}:when={number}")
        assert outcome.code == FAILED
        assert outcome.error["errno"] == errno.EIO
        assert_sound(folder, outcome, {})
        assert_finishes_as_if_nothing_had_happened(trainer, folder, "epochs", whole)


def test_an_fsync_is_never_tried_again(trainer, tmp_path, points, whole):
    """After an fsync that failed once, no later success makes the lost bytes count: the save has failed."""
    first = next(number for name, number in points("steps") if name == "fsync")
    folder = tmp_path / "run"
    before = survey(folder)
    outcome = trainer.run(folder, "steps", inject=f"fsync:error=EIO:when={first}")
    assert outcome.code == FAILED
    assert_sound(folder, outcome, before)
    assert survey(folder)["files"] == {}
    assert_finishes_as_if_nothing_had_happened(trainer, folder, "steps", whole)
