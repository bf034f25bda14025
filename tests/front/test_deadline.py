"""A deadline is saved ahead of, once, by what the saves have taken; a grace period that is too short is said."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest
import torch

from holdfast import Checkpointer, ConfigurationError, FakeClock
from holdfast.front.remaining import ENDS, make_remaining
from tests.front.loops import names, step_of


def checkpointer(folder, clock=None, **words):
    return Checkpointer(folder, model=torch.nn.Linear(1, 1), clock=clock, every_n_train_steps=10**6, **words)


@pytest.mark.parametrize("kind", ["seconds", "delta", "date", "job"])
def test_it_saves_ahead_of_it_once(tmp_path, caplog, monkeypatch, kind):
    """Steps of 10 s, an end after 100 s: that of 90 s is committed, however the deadline is given."""
    clock = FakeClock()
    end = clock.now() + timedelta(seconds=100)
    if kind == "job":
        monkeypatch.setenv(ENDS, str(int(end.timestamp())))
    given = {"seconds": 100, "delta": timedelta(seconds=100), "date": end, "job": "auto"}[kind]
    with checkpointer(tmp_path, clock, deadline=given) as ckpt:
        for step in range(1, 15):
            clock.advance(10)
            ckpt.step()
            assert bool(names(tmp_path)) == (step >= 9), step
    assert names(tmp_path) == ["preempted-epoch=0-step=9.ckpt"]
    assert sum("the deadline is in 10 s" in text for text in caplog.messages) == 1


def test_with_a_last_that_is_brought_up(tmp_path):
    """Where there is a ``last``, it is that; the next commit goes on as if nothing had been."""
    clock = FakeClock()
    with checkpointer(tmp_path, clock, deadline=100, save_last=True) as ckpt:
        for _ in range(12):
            clock.advance(10)
            ckpt.step()
        assert step_of(tmp_path / "last.ckpt") == 9
    assert names(tmp_path) == ["last.ckpt"]
    assert step_of(tmp_path / "last.ckpt") == 12


def test_slow_saves_begin_earlier():
    """A save that took 30 s begins twice that ahead, one that took 1 s later; before any, its size counts."""
    clock = FakeClock()
    for seconds, size, least in [(30.0, 0, 60), (1.0, 0, 2), (0.0, 10**10, 100)]:
        remaining = make_remaining(None, 1000, clock)
        remaining.assume(size)
        remaining.learn(seconds)
        assert not remaining.is_due(1000 - least - 2.1)
        assert remaining.is_due(1000 - least - 1.9)
        remaining.done()
        assert not remaining.is_due(10**6)


def test_a_slow_step_counts_for_a_while():
    """After steps of 50 s the next look may be as late; quick steps take that back."""
    clock = FakeClock()
    remaining = make_remaining(None, 1000, clock)
    for _ in range(3):
        clock.advance(50)
        remaining.is_due()
    clock.advance(1000 - 150 - 40)
    assert remaining.is_due()
    remaining = make_remaining(None, 1000, clock)
    for _ in range(300):
        clock.advance(0.01)
        assert not remaining.is_due()


def test_a_grace_period_that_is_too_short_is_warned_of_once():
    """By the first save that takes longer, in a text with both numbers; ranks talk the more often the less there is."""
    remaining = make_remaining(30, None, FakeClock())
    assert remaining.limit() == 15
    assert remaining.learn(10.0) == ""
    assert remaining.limit() == 5
    assert "takes 31 s" in remaining.learn(31.0)
    assert remaining.limit() == 0
    assert remaining.learn(32.0) == ""


def test_a_save_is_measured(tmp_path):
    """Behind the training or not, a save that takes longer than the grace period is said, in both."""
    for mode in (True, False):
        with checkpointer(tmp_path / str(mode), async_save=mode, grace_period=1e-9) as ckpt:
            ckpt.step()
            with pytest.warns(UserWarning, match="`grace_period` says that 1e-09 s"):
                ckpt.save_checkpoint()


@pytest.mark.parametrize(
    ("word", "value"),
    [("deadline", value) for value in (0, -1, True, "now", timedelta(0), float("nan"), float("inf"), [1])]
    + [("grace_period", value) for value in (0, -1, True, "30", timedelta(0), float("nan"))]
    + [("deadline", datetime(2000, 1, 1, tzinfo=timezone.utc))],
)
def test_a_wrong_word_is_named(tmp_path, word, value):
    """The error names the word and what it can be; nothing was made."""
    with pytest.raises(ConfigurationError, match=f"`{word}` is"):
        checkpointer(tmp_path / "run", **{word: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["", "never", "1", "9" * 30])
def test_a_job_end_that_is_none_is_left_alone(monkeypatch, value):
    """What a variable of another kind, or one left from an old job says, is no deadline."""
    monkeypatch.setenv(ENDS, value)
    assert make_remaining(None, "auto", FakeClock()).at is None


def test_a_date_without_a_zone_is_of_this_machine():
    """``datetime.now() + ...`` means what it looks like."""
    clock = FakeClock()
    local = (clock.now() + timedelta(seconds=50)).astimezone().replace(tzinfo=None)
    assert make_remaining(None, local, clock).left == pytest.approx(50)


def test_a_real_one(tmp_path):
    """By the real clock: a run that is ended three seconds from its start has committed its state by then."""
    end = time.monotonic() + 3
    with checkpointer(tmp_path, deadline=3) as ckpt:
        while not names(tmp_path) and time.monotonic() < end:
            time.sleep(0.005)
            ckpt.step()
        (name,) = names(tmp_path)
        assert step_of(tmp_path / name) == ckpt.global_step > 1
