"""Every state that a power cut may leave of a training's folder keeps what was promised; wrong savers do not."""

from __future__ import annotations

import pytest

from holdfast.testing import power
from tests.crash import power_mutants as mutants
from tests.crash.counts import count
from tests.crash.power_promises import Promises, assert_kept
from tests.crash.power_scenarios import SCENARIOS, scenario
from tests.support.properties import FACTOR, chance


def check(name, tmp_path, place, *fault, most=None, **how):
    """Record a scenario and look at each of its states, or at ``most`` of them by chance; return their number."""
    recording = power.record(scenario, tmp_path / "recorded", name, *fault)
    states = list(recording.states(**how))
    if most is not None and len(states) > most:
        states = chance(name).sample(states, most)
    for state in states:
        promises = Promises.of(state.marks)
        state.write(place)
        try:
            assert_kept(place, promises, SCENARIOS[name][-1])
        except Exception as error:
            message = f"{error}\n{state}"
            raise AssertionError(message) from error
    return len(states)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("name", ["first save", "last of its own"])
def test_states_after_a_power_cut(tmp_path, place, name):
    """Whatever the disk has kept of it: what was committed is there to the bit, and the next run goes on from it."""
    count("states after a power cut", check(name, tmp_path, place, most=100 * FACTOR))


@pytest.mark.long
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("any_order", [False, True], ids=["in order", "in any order"])
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_state_after_a_power_cut(tmp_path, place, name, any_order):
    """The same for all scenarios; and where the names of one folder reach the disk in any order, too."""
    count("states after a power cut", check(name, tmp_path, place, any_order=any_order))


def _name(case):
    return getattr(case, "__name__", str(case))


def _some(cases, slow):
    """Mark those whose states are many as long."""
    return [pytest.param(case, marks=pytest.mark.long) if _name(case) in slow else case for case in cases]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", _some(mutants.MUTANTS, {"removed_before_replaced", "no_sync_at_all"}), ids=_name)
def test_wrong_savers_are_found_out(tmp_path, place, fault):
    """A saver that does a step too late, or in place, or not at all, does not get through."""
    with pytest.raises(AssertionError, match="power lost after"):
        check(mutants.MUTANTS[fault], tmp_path, place, fault)
    count("wrong savers found out by power cuts")


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    "site",
    _some(mutants.sites(), {"_open_spare, sync 1", "remove, sync 1", "remove, sync 2", "clone, sync 1"}),
    ids=str,
)
def test_no_sync_can_be_left_out(tmp_path, place, site):
    """Without any single one of the syncs in the local store, something promised is lost in some state."""
    with pytest.raises(AssertionError, match="power lost after"):
        check(mutants.EXPOSED[str(site)], tmp_path, place, mutants.leave_out, site)
    count("wrong savers found out by power cuts")
