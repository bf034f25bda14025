"""When several ranks talk between saves, and what they then know."""

from __future__ import annotations

import os

from tests.ranks import jobs_pulse
from tests.support.ranks import run_ranks


def names(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def test_without_clock_and_signals_the_ranks_do_not_talk(tmp_path):
    """A loop that saves by counts and hears no signals makes no collective at a step that saves nothing."""
    assert run_ranks(2, jobs_pulse.quiet_steps, tmp_path, {"save_on_signal": False}, 500) == [{}, {}]


def test_with_signals_they_talk_rarely(tmp_path):
    """Steps of a millisecond: one small tensor a second, and no object; the first talks find the pace."""
    for seen in run_ranks(2, jobs_pulse.quiet_steps, tmp_path, {}, 5000):
        assert seen.keys() == {"highest"}
        assert seen["highest"] <= 12
