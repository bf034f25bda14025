"""Whole training loops, saved at every step with copies as late as can be: each file is the state of its step."""

from __future__ import annotations

import itertools
import os
import re

import pytest
import torch

from holdfast import Checkpointer, verify
from tests.engine import loops
from tests.engine.loops import OPTIMIZERS, STEPS
from tests.support.lightning_cases import quietly
from tests.support.states import same

MODES = {"overlap": {"overlap": True}, "zero copy": {"zero_copy": True}}
MOMENTS = pytest.mark.parametrize("moment", ["before", "halfway"])


def run(kind, folder, steps=STEPS, **words):
    """Train, saving at every step; return the states by the names of their files, what was said, and what it cost."""
    one = kind()
    oracles = {}
    options = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}", **words}

    def train():
        with Checkpointer(folder, model=one.model, optimizer=one.optimizers, **options) as ckpt:
            for _ in range(steps):
                one.train(ckpt)
                oracles[f"step={one.number}.ckpt"] = one.states()
                ckpt.step()
            return ckpt.stats

    stats, messages = quietly(train)
    return oracles, messages, stats


def check(oracles, messages, folder):
    """Compare every file with the state of its moment; each that is not there was said to be given up."""
    there = [name for name in oracles if os.path.exists(os.path.join(folder, name))]
    assert sorted(there) == sorted(os.listdir(folder))
    for name in there:
        path = os.path.join(folder, name)
        verify(path)
        loaded = torch.load(path, weights_only=False)
        for key, oracle in oracles[name].items():
            assert same(loaded[key], oracle), f"{name} is torn in {key}"
    given_up = {match[1] for text in messages if (match := re.search(r"(step=\d+\.ckpt) was not saved", text))}
    assert given_up == set(oracles) - set(there)
    return given_up


GROWING = ("SearchedClosure",)  # whose state has another shape at each step: always rehearsed, never overlapped
WELL_BEHAVED = {
    **OPTIMIZERS,
    **{
        kind.__name__: kind
        for kind in (
            loops.Closure,
            loops.ClosureByName,
            loops.SearchedClosure,
            loops.Scaler,
            loops.Compiled,
            loops.CompiledWhole,
            loops.InBackward,
            loops.TwoOptimizers,
            loops.OwnFenced,
            loops.OwnFencedByData,
            loops.Replaces,
            loops.Reloads,
            loops.Averages,
            loops.Clips,
        )
    },
}


def in_each_mode(kinds):
    """Each kind in each mode."""
    return pytest.mark.parametrize(("kind", "mode"), itertools.product(kinds, MODES))


@in_each_mode(WELL_BEHAVED)
def test_every_state_is_saved_whole(kind, mode, slow_copies, tmp_path):
    """With each optimizer and each way to step, every save is committed, and holds the state of its moment."""
    oracles, messages, stats = run(WELL_BEHAVED[kind], tmp_path, **MODES[mode])
    assert check(oracles, messages, tmp_path) == set()
    assert len(os.listdir(tmp_path)) == STEPS
    assert stats.given_up == 0
    if mode == "overlap" and kind not in GROWING:
        assert slow_copies.overlapped > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", [loops.CompiledByInductor])
def test_a_step_compiled_to_machine_code_waits(kind, slow_copies, tmp_path):
    """A step compiled by inductor, which writes past torch's count, passes the fence like any other."""
    oracles, messages, _ = run(kind, tmp_path, overlap=True)
    assert check(oracles, messages, tmp_path) == set()
    assert slow_copies.overlapped > 0


@in_each_mode([loops.OwnUnfenced, loops.OwnUnfencedByData])
def test_an_optimizer_that_passes_no_fence_costs_nothing(kind, mode, slow_copies, tmp_path):
    """An optimizer that is none of torch's, without ``fence()``: every save is copied at once, and whole."""
    oracles, messages, _ = run(kind, tmp_path, **MODES[mode])
    assert check(oracles, messages, tmp_path) == set()
    assert slow_copies.overlapped == 0


@in_each_mode(
    [loops.OwnThenTorch, loops.OwnByDataThenTorch, loops.AveragesSometimes, loops.ClipsData, loops.ReloadsModel],
)
@MOMENTS
def test_what_changes_between_save_and_step_is_never_torn(kind, mode, moment, slow_copies, tmp_path):
    """Whatever is written between a save and a step, each file is of its moment, or was given up aloud."""
    slow_copies.moment = moment
    oracles, messages, stats = run(kind, tmp_path, **MODES[mode])
    given_up = check(oracles, messages, tmp_path)
    assert len(given_up) == stats.given_up <= 1


def test_writes_through_data_are_told(slow_copies, tmp_path):
    """Clipping through ``.data`` turns overlapping off at the first step, with a warning."""
    oracles, messages, _ = run(loops.ClipsData, tmp_path, overlap=True)
    assert check(oracles, messages, tmp_path) == set()
    assert any("does not count (through `.data`" in text for text in messages)
    assert slow_copies.overlapped <= 1  # the moments' first save is of another shape than the one before


@pytest.mark.parametrize("words", [{"images": 2}, {"recycle_blocks": True, "save_top_k": 1}], ids=str)
def test_with_other_words_too(words, tmp_path):
    """Two images, or blocks written over, at the speed of the machine: what is there is of its moment."""
    oracles, messages, _ = run(loops.Kind, tmp_path, 4 * STEPS, overlap=True, **words)
    kept = {name: oracles[name] for name in os.listdir(tmp_path)}
    assert list(oracles)[-1] in kept
    assert check(kept, messages, tmp_path) == set()
