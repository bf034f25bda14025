"""When several ranks talk between saves, and what they then know."""

from __future__ import annotations

import os

import pytest

from tests.ranks import jobs_pulse
from tests.support.ranks import run_ranks


def test_without_clock_and_signals_the_ranks_do_not_talk(tmp_path):
    """A loop that saves by counts and hears no signals makes no collective at a step that saves nothing."""
    assert run_ranks(2, jobs_pulse.quiet_steps, tmp_path, {"save_on_signal": False}, 500) == [{}, {}]


@pytest.mark.parametrize("words", [{}, {"grace_period": 60}, {"deadline": 3600}])
def test_with_signals_they_talk_rarely(tmp_path, words):
    """Steps of a millisecond: one small tensor a second, and no object; the first talks find the pace."""
    for seen in run_ranks(2, jobs_pulse.quiet_steps, tmp_path, words, 5000):
        assert seen.keys() == {"highest"}
        assert seen["highest"] <= 16


def test_all_ranks_talk_at_the_same_steps():
    """Whatever a step takes on which rank, and whatever rank 0's limits: the same beats, news and pace."""
    first, second, third = run_ranks(3, jobs_pulse.beats, 20, 300)
    assert first == second == third
    assert 20 * 10 < sum(map(len, first)) < 20 * 200  # steps of 0.1 ms to 100 s


def test_a_time_that_is_due_is_rank_0s(tmp_path):
    """A trigger of 60 s with steps of 0.7 s by rank 0's clock, and none by rank 1's: both save, late by 6 s at most."""
    first, second = run_ranks(2, jobs_pulse.by_time, tmp_path, 300)
    assert first == second
    assert len(first) == 3
    assert all(60 <= 0.7 * (step - before) <= 67 for before, step in zip([0, *first], first, strict=False))


def test_what_is_committed_between_saves_is_known_and_rotated(tmp_path):
    """With nothing but counts to save by, retention still runs between the saves, on every rank alike."""
    first, second = run_ranks(2, jobs_pulse.landing, tmp_path)
    assert first == second == [2000]
    assert [name for name in os.listdir(tmp_path) if name.endswith(".ckpt")] == ["epoch=0-step=2000.ckpt"]


def test_a_save_that_waits_for_its_metric_gets_it_at_a_step(tmp_path):
    """Rank 0 alone measures, every 7 steps; the save of step 10 is made at 14; no object is sent in between."""
    first, second = run_ranks(2, jobs_pulse.deferred, tmp_path)
    assert first == second == ([14, 21], 0)


def test_a_deadline_is_rank_0s(tmp_path):
    """Ranks whose clocks are decades apart save once, at the same step, before the end by rank 0's clock."""
    first, second = run_ranks(2, jobs_pulse.ahead, tmp_path)
    assert first == second == ["preempted-epoch=0-step=9.ckpt"]
