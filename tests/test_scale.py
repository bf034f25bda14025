"""The model behind ``docs/scale.md``: that it runs, and that what it throws can be."""

from __future__ import annotations

import random

import pytest

from benchmarks.scale import Model, main, state_of
from benchmarks.scale_model import Cluster, Failing, Load, run, save, saves, sized, typical
from holdfast import expected_waste

LOAD = Load(state=4.87e12, told=200, metadata=5e8, preparing=0.0)


def test_the_script_runs_and_makes_real_tables(capsys):
    """With ``--quick`` both tables are printed, and more ranks have less of the state each."""
    sizes = main(["--quick"])
    printed = capsys.readouterr().out
    assert "simulated" in printed
    assert sizes[16].largest < sizes[2].largest
    assert all(one.state <= ranks * one.largest for ranks, one in sizes.items())


def test_the_model_has_its_parameters():
    """The shapes are those of Llama 3.1 405B: 405.85 billion parameters, and two averages of each."""
    items = state_of(Model())
    weights = [item for item in items if item.name.startswith("state_dict.")]
    total = sum(item.shape[0] * (item.shape[1] if len(item.shape) > 1 else 1) for item in weights)
    assert len(items) == 3 * len(weights) == 3 * 1137
    assert total == 405_853_388_800


def test_a_save_is_in_the_order_of_its_parts():
    """No commit before the last file, no last file before the first; the same seed throws the same."""
    thrown = saves(Cluster(), LOAD, 5, seed=3)
    assert thrown == saves(Cluster(), LOAD, 5, seed=3)
    assert all(one.stall < one.first <= one.last < one.commit for one in thrown)
    assert typical(saves(sized(Cluster(), 4096), LOAD, 2)).stall < typical(thrown).stall


@pytest.mark.parametrize("interval", [220.0, 2000.0])
def test_a_runs_time_adds_up_and_wastes_what_is_expected(interval):
    """All time is progress, stall, a restart or done again; on average that is what the formula says."""
    cost = save(Cluster(), LOAD, random.Random(1))  # noqa: S311 - repeatable
    wanted, mtbf, restart = 2e7, 1e5, 600.0
    done = run(wanted, interval, cost, Failing(mtbf, restart, seed=5))
    assert done.wall == pytest.approx(wanted + done.stalls + done.again + done.restarts)
    assert done == run(wanted, interval, cost, Failing(mtbf, restart, seed=5))
    expected = expected_waste(interval, cost.stall, mtbf, write=cost.commit, restart=restart)
    assert done.waste == pytest.approx(expected, rel=0.2)
