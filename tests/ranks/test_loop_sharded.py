"""``Checkpointer`` with a model that lies in parts on several ranks: one directory, any number of ranks to resume."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.ranks import jobs_sharded_loop as jobs
from tests.support.ranks import run_ranks

WORDS = {"every_n_train_steps": 2, "save_top_k": -1}
JOBS = "tests.ranks.jobs_sharded_loop"


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    """Checkpoints change nothing, and a sharded run that is resumed ends bit-identical on every rank."""
    expected = run_ranks(2, f"{JOBS}:untouched")
    assert run_ranks(2, f"{JOBS}:trained", tmp_path / "whole", WORDS) == expected
    run_ranks(2, f"{JOBS}:trained", tmp_path / "run", WORDS, 7)
    again = run_ranks(2, f"{JOBS}:go_on", tmp_path / "run", WORDS)
    assert [(start["step"], start["missed"]) for start, _ in again] == [(6, ())] * 2
    assert [state for _, state in again] == expected
    assert jobs.names(tmp_path / "run") == jobs.names(tmp_path / "whole")


def same(one, other):
    """Compare weights and moments; positions and generators are another matter with another number of ranks."""
    assert one[0] == other[0]
    assert one[1] == other[1]
    assert one[2][0] == other[2][0]
    assert one[2][2] == other[2][2]


def reshard(tmp_path, before, after, kind, dtype, sharded=True):
    saved = run_ranks(before, f"{JOBS}:trained", tmp_path, {"every_n_train_steps": 3}, 3, kind, dtype)
    found = run_ranks(after, f"{JOBS}:resumed", tmp_path, None, kind, dtype, sharded)
    for start, state in found:
        assert start["step"] == 3
        same(state, saved[0])
        assert bool(start["missed"]) == (before != after)


@pytest.mark.parametrize(
    ("before", "after", "kind", "dtype"),
    [(2, 3, "adamw", torch.bfloat16), (3, 1, "sgd", torch.float32), (1, 2, "adamw", torch.float32)],
)
def test_saved_on_some_ranks_and_loaded_on_others(tmp_path, before, after, kind, dtype):
    """Weights, moments, a buffer and a tied weight are the same to the bit, whatever number of ranks saved them."""
    reshard(tmp_path, before, after, kind, dtype)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("after", [1, 2, 3, 4])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_every_number_of_ranks_to_every_other(tmp_path, before, after, kind, dtype):
    """The whole matrix: saved on 1 to 4 ranks, loaded on 1 to 4."""
    reshard(tmp_path, before, after, kind, dtype)


def test_into_a_model_that_is_not_sharded(tmp_path):
    """A directory of shards fills a plain model and its optimizer, on one process without ranks, and on two."""
    saved = run_ranks(3, f"{JOBS}:trained", tmp_path, {"every_n_train_steps": 3}, 3)
    start, state = jobs.resumed(tmp_path, sharded=False)
    assert start["step"] == 3
    same(state, saved[0])
    for _, state in run_ranks(2, f"{JOBS}:resumed", tmp_path, None, "adamw", torch.float32, False):
        same(state, saved[0])


def test_from_one_file_into_a_sharded_model(tmp_path):
    """A checkpoint of one process is cut for the ranks of a sharded model, moments included."""
    trainee = jobs.Trainee(sharded=False)
    saved = trainee.run(trainee.checkpointer(tmp_path, every_n_train_steps=3), stop_at=3).state()
    for start, state in run_ranks(2, f"{JOBS}:resumed", tmp_path):
        assert start["step"] == 3
        same(state, saved)


def test_plain_dcp_reads_what_was_saved(tmp_path):
    """``dcp.load`` fills a state under the documented names."""
    saved = run_ranks(2, f"{JOBS}:trained", tmp_path, {"every_n_train_steps": 3}, 3)[0]
    (name,) = jobs.names(tmp_path)
    state = {
        "state_dict": {"first.weight": torch.zeros(7, 3)},
        "optimizer_states": [{"state": {"0": {"exp_avg": torch.zeros(7, 3)}}}],
        "global_step": 0,
    }
    dcp.load(state, checkpoint_id=os.path.join(tmp_path, name), no_dist=True)
    assert state["global_step"] == 3
    assert jobs.full(state["state_dict"]["first.weight"]) == saved[0]["first.weight"]
    assert jobs.full(state["optimizer_states"][0]["state"]["0"]["exp_avg"]) == saved[1]["0.exp_avg"]
