"""Every state that a power cut may leave of a training's folder keeps what was promised; wrong savers do not."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

from holdfast.testing import power
from tests.crash.promises import Promises, assert_kept
from tests.crash.scenarios import SCENARIOS, scenario


@pytest.fixture(scope="session")
def _traced():
    if not power.can_trace():
        pytest.skip("no strace that may attach to a process (apt-get install strace)")


@pytest.fixture
def place():
    """A folder in memory where there is one: the states are many, and each of them is a folder."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - for its speed
    with tempfile.TemporaryDirectory(dir=memory, prefix="holdfast-power-") as folder:
        yield os.path.join(folder, "state")


def check(name, tmp_path, place, fault="", **how):
    """Record a scenario and look at each of its states; return their number."""
    recording = power.record(scenario, tmp_path / "recorded", name, fault)
    states = list(recording.states(**how))
    whole = [json.loads(text) for text in states[-1].marks]
    last = SCENARIOS[name][-1]
    for state in states:
        promises = Promises.of([json.loads(text) for text in state.marks], whole)
        state.write(place)
        try:
            assert_kept(place, promises, last)
        except Exception as error:
            message = f"{error}\n{state}"
            raise AssertionError(message) from error
    return len(states)


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("name", ["first save", "last"])
def test_every_state_after_a_power_cut(tmp_path, place, name):
    """Whatever the disk has kept of it: what was committed is there to the bit, and the next run goes on from it."""
    assert check(name, tmp_path, place) > 10


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("fault", ["no sync at all", "no sync of files", "no sync of folders"])
def test_wrong_savers_are_found_out(tmp_path, place, fault):
    """A saver without one of its syncs does not get through."""
    with pytest.raises(AssertionError, match="power lost after"):
        check("first save", tmp_path, place, fault)
