"""Sharded checkpoints, their replacements and removals: killed at every system call, and after any loss of power."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from holdfast.testing import power
from holdfast.testing.kills import Forks, can_trace
from tests.crash import sharded
from tests.crash.counts import count

KILLED = -9
TRAIN = "tests.crash.sharded:train"
EXCHANGES = pytest.mark.parametrize("no_exchange", [False, True], ids=["exchange", "no exchange"])


@pytest.fixture(scope="module")
def forks():
    if not can_trace():
        pytest.skip("nobody may trace here")
    with Forks("tests.crash.sharded", warm="tests.crash.sharded:warm") as made:
        yield made


def strike(forks, folder, no_exchange, every):
    """Kill the saves at every so manieth call, before it and in its midst; look at what each has left."""
    points = forks.points(TRAIN, str(folder), no_exchange, watch=folder)
    for at, point in enumerate(points[::every]):
        shutil.rmtree(folder)
        do = "kill" if at % 2 == 0 or every == 1 else "torn"
        for how in ("kill", "torn") if every == 1 else (do,):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            ended = forks.run(TRAIN, str(folder), no_exchange, watch=folder, at=point, do=how)
            assert ended.reached, point
            assert ended.code == KILLED
            try:
                sharded.assert_kept(str(folder), ended.said, no_exchange=no_exchange)
            except Exception as error:
                message = f"{how} at {point}: {error}"
                raise AssertionError(message) from error
            count("sharded saves killed at system calls")


@EXCHANGES
def test_killed_at_system_calls(forks, tmp_path, no_exchange):
    """Wherever it is killed: whatever is listed is whole, what was committed is there, and a sweep leaves no trace."""
    folder = tmp_path / "run"
    folder.mkdir()
    strike(forks, folder, no_exchange, every=53)


@pytest.mark.long
@EXCHANGES
def test_killed_at_every_system_call(forks, tmp_path, no_exchange):
    """The same at every single call."""
    folder = tmp_path / "run"
    folder.mkdir()
    strike(forks, folder, no_exchange, every=1)


def cut(tmp_path, place, *arguments, **how):
    """Record the saves and look at the states that a power cut may leave; return their number."""
    recording = power.record(sharded.scenario, tmp_path / "recorded", *arguments)
    number = 0
    for state in recording.states(**how):
        state.write(place)
        os.makedirs(os.path.join(place, "run"), exist_ok=True)
        try:
            said = list(map(json.loads, state.marks))
            sharded.assert_kept(os.path.join(place, "run"), said, no_exchange=bool(arguments and arguments[0]))
        except Exception as error:
            message = f"{error}\n{state}"
            raise AssertionError(message) from error
        number += 1
    return number


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@EXCHANGES
def test_states_after_a_power_cut(tmp_path, place, no_exchange):
    """Whatever the disk has kept of it: no torn directory under a name, and of two that change places never none."""
    count("states of sharded saves after a power cut", cut(tmp_path, place, no_exchange))


WRONG = ("settle", "replace_bundle", "remove_bundle")


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("function", WRONG)
def test_no_sync_can_be_left_out(tmp_path, place, function):
    """Without the sync of any one step of a commit, a replacement or a removal, something promised is lost."""
    with pytest.raises(AssertionError, match="power lost after"):
        cut(tmp_path, place, False, function)
    count("wrong savers found out by power cuts")
