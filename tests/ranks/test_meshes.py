"""``Checkpointer`` with tensor parallelism, replicas of shards, both, and with states that only the user knows."""

from __future__ import annotations

import pytest

from tests.ranks.jobs_sharded_loop import names
from tests.support.ranks import run_ranks

JOBS = "tests.ranks.jobs_meshes"
WORDS = {"every_n_train_steps": 2, "save_top_k": -1}
LATER = {**WORDS, "every_n_train_steps": 1, "overlap": True}
APART = {"norm": True, "differ": True}  # a BatchNorm whose running statistics nobody keeps alike


@pytest.mark.parametrize(
    ("size", "kind", "parts", "words"),
    [
        (4, "both", {}, WORDS),
        (2, "fsdp", {"ema": True}, WORDS),
        (2, "fsdp", APART, WORDS),
        pytest.param(2, "tp", {}, WORDS, marks=pytest.mark.long),
        pytest.param(4, "hsdp", {"width": 7}, WORDS, marks=pytest.mark.long),
        pytest.param(4, "hsdp", APART, WORDS, marks=pytest.mark.long),
        pytest.param(2, "ddp", APART, WORDS, marks=pytest.mark.long),
        pytest.param(2, "fsdp", {"app": True}, WORDS, marks=pytest.mark.long),
        pytest.param(2, "fsdp", {"width": 30_000}, LATER, marks=pytest.mark.long),
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, size, kind, parts, words):
    """Checkpoints change nothing; a run that is resumed ends bit-identical on each rank, in all that it has."""
    expected = run_ranks(size, f"{JOBS}:untouched", kind, parts)
    assert run_ranks(size, f"{JOBS}:trained", tmp_path / "whole", kind, parts, words) == expected
    run_ranks(size, f"{JOBS}:trained", tmp_path / "run", kind, parts, words, 5)
    again = run_ranks(size, f"{JOBS}:go_on", tmp_path / "run", kind, parts, words)
    assert [start[1] for start, _ in again] == [()] * size
    assert [state for _, state in again] == expected


@pytest.mark.long
@pytest.mark.parametrize(
    ("before", "after"), [((4, "both"), (3, "fsdp")), ((2, "tp"), (4, "hsdp")), ((4, "hsdp"), (2, "ddp"))]
)
def test_from_one_mesh_to_another(tmp_path, before, after):
    """Weights and moments are the same to the bit, however the ranks that load them lie."""
    saved = run_ranks(before[0], f"{JOBS}:trained", tmp_path, before[1], {}, WORDS, 4)[0]
    for start, state in run_ranks(after[0], f"{JOBS}:go_on", tmp_path, after[1], {}, WORDS, 0):
        assert start[0] == 4
        assert {name.replace("module.", ""): value for name, value in state.items()} == saved


@pytest.mark.parametrize("words", [WORDS, pytest.param({**WORDS, "save_weights_only": True}, marks=pytest.mark.long)])
def test_buffers_that_differ_are_rank_0s_for_others(tmp_path, words):
    """Loaded on one rank more, or as weights alone, all of them are rank 0's; none is mixed, and resume says so."""
    saved = run_ranks(2, f"{JOBS}:trained", tmp_path, "fsdp", APART, words, 4)
    assert saved[0] != saved[1]
    if "save_weights_only" in words:
        assert run_ranks(1, f"{JOBS}:weights", tmp_path / names(tmp_path)[-1], APART) == [
            {name: value for name, value in saved[0].items() if name.startswith("model")}
        ]
        return
    for start, state in run_ranks(3, f"{JOBS}:go_on", tmp_path, "fsdp", APART, words, 0):
        assert "buffers" in " ".join(start[1])
        assert state == saved[0]


def test_a_save_that_is_due_while_one_is_written_is_left_out_on_all_ranks(tmp_path):
    """With ``on_busy="skip"`` two of three saves are skipped, by rank 0's word, and the ranks stay together."""
    first, second = run_ranks(2, f"{JOBS}:busy", tmp_path)
    assert first == second == (2, 1)
    assert names(tmp_path) == ["step=1.ckpt"]


def test_a_save_in_inference_mode(tmp_path):
    """Where torch gives no state of sharded tensors, in a validation's inference mode, a save takes it all the same."""
    for saved, found in run_ranks(2, f"{JOBS}:validated", tmp_path):
        assert found == saved


def test_what_ddp_ignores_is_told_of(tmp_path):
    """Trained parameters that nothing keeps alike are saved as rank 0 has them: a warning names them and the cure."""
    for said in run_ranks(2, f"{JOBS}:ignoring", tmp_path):
        assert len(said) == 1
        assert "ignores down.weight: only rank 0's are saved" in said[0]
