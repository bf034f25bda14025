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


def reshard(tmp_path, before, after, kind, dtype):
    saved = run_ranks(before, f"{JOBS}:trained", tmp_path, {"every_n_train_steps": 3}, 3, kind, dtype)
    found = run_ranks(after, f"{JOBS}:resumed", tmp_path, None, kind, dtype)
    for start, state in found:
        assert start["step"] == 3
        same(state, saved[0])
        assert bool(start["missed"]) == (before != after)


@pytest.mark.parametrize(
    ("before", "after", "kind", "dtype"),
    [
        (2, 3, "adamw", torch.bfloat16),
        pytest.param(3, 1, "sgd", torch.float32, marks=pytest.mark.long),
        pytest.param(1, 2, "adamw", torch.float32, marks=pytest.mark.long),
    ],
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
    with pytest.warns(UserWarning, match="each of 3 ranks had its own, and here is 1"):
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


def test_ranking_last_and_retention(tmp_path):
    """Directories are ranked, dropped and called ``last`` like files, by rank 0's metric; every rank knows the same."""
    first, second = run_ranks(2, f"{JOBS}:kept", tmp_path)
    assert first == second
    assert first[:3] == ({"epoch=1.ckpt": 1.0, "epoch=2.ckpt": 2.0}, "epoch=1.ckpt", "last.ckpt")
    assert first[3] >= 4
    assert jobs.names(tmp_path) == ["epoch=1.ckpt", "epoch=2.ckpt", "last.ckpt"]
    assert all(os.path.isdir(tmp_path / name) for name in jobs.names(tmp_path))


def flip(path):
    """Change one byte in the first region of a shard."""
    with open(path, "r+b") as file:
        data = file.read()
        at = len(data) // 3
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))


def damage(folder, step, rank):
    names = [name for name in jobs.names(folder) if f"step={step}" in name]
    shards = sorted(name for name in os.listdir(folder / names[0]) if name.endswith(".distcp"))
    flip(folder / names[0] / shards[rank])
    return names[0]


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 1])
def test_a_damaged_shard_is_passed_over_by_all(tmp_path, rank):
    """A flipped byte in one rank's file: all pass over to the one before, which they load whole, and set it aside."""
    run_ranks(2, f"{JOBS}:trained", tmp_path, WORDS, 4)
    expected = run_ranks(2, f"{JOBS}:trained", tmp_path / "two", WORDS, 2)[0][0]
    name = damage(tmp_path, 4, rank)
    found = run_ranks(2, f"{JOBS}:over_damage", tmp_path)
    assert found == [(2, [(name, f"{name}.damaged")], expected)] * 2


def test_where_nothing_is_whole_the_model_is_as_it_was(tmp_path):
    """With the only checkpoint damaged, or a stop at the first, every rank raises and no parameter has changed."""
    run_ranks(2, f"{JOBS}:trained", tmp_path, WORDS, 2)
    damage(tmp_path, 2, 1)
    for kind, text, untouched in run_ranks(2, f"{JOBS}:error_of", tmp_path):
        assert (kind, untouched) == ("DamagedCheckpointError", True)
        assert "__1_0.holdfast-" in text


def test_a_full_disk_under_one_rank_is_known_to_all(tmp_path):
    """The save fails on every rank with an error that names rank 1; the ones before and after it are committed."""
    first, second = run_ranks(2, f"{JOBS}:failing", tmp_path)
    assert len(first) == len(second) == 1
    assert "No space left" in first[0]
    assert "No space left" in second[0]
    assert jobs.names(tmp_path) == ["step=1.ckpt", "step=3.ckpt"]


def test_several_checkpointers_side_by_side(tmp_path):
    """Three of them on the same ranks, each with saves on their way: nothing is mixed up, and all is committed."""
    expected = run_ranks(2, f"{JOBS}:trained", tmp_path / "one", WORDS, 6)[0][0]
    found = run_ranks(2, f"{JOBS}:side_by_side", tmp_path / "run")
    assert found == [(6, 2, 3, expected)] * 2
    names = jobs.names(tmp_path / "run")
    assert names == ["often-step=6.ckpt", "seldom-step=3.ckpt", "seldom-step=6.ckpt", "there"]
    assert len(jobs.names(tmp_path / "run" / "there")) == 3


def test_flat_pieces_are_refused(tmp_path):
    """A model in FSDP1 is an error on every rank that names the cure, before anything is written."""
    texts = run_ranks(2, f"{JOBS}:flat", tmp_path / "run")
    assert all("fully_shard" in text for text in texts)
    assert not (tmp_path / "run").exists()


def test_stages_of_a_pipeline_are_refused(tmp_path):
    """Ranks that train different parameters would write over each other's moments: an error on every rank."""
    texts = run_ranks(2, f"{JOBS}:stages", tmp_path)
    assert all("rank 1 trains other parameters than rank 0" in text for text in texts)
    assert jobs.names(tmp_path) == []
