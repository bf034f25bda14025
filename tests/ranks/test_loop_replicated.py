"""``Checkpointer`` on several ranks that hold the same model: one file, and what differs by rank is saved for each."""

from __future__ import annotations

import os

import pytest
import torch

from holdfast import Checkpointer
from tests.support.ranks import run_ranks

WORDS = {"every_n_train_steps": 2, "save_top_k": -1}
JOBS = "tests.ranks.jobs_loop"


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    """With dropout, draws and data that differ by rank, every rank of a resumed run ends bit-identical."""
    expected = run_ranks(2, f"{JOBS}:whole", tmp_path / "whole", WORDS)
    assert expected[0] != expected[1]
    assert run_ranks(2, f"{JOBS}:without") == expected
    run_ranks(2, f"{JOBS}:begin", tmp_path / "run", WORDS, 7)
    resumed = run_ranks(2, f"{JOBS}:go_on", tmp_path / "run", WORDS)
    assert [start["step"] for start, _ in resumed] == [6, 6]
    assert [start["missed"] for start, _ in resumed] == [(), ()]
    assert [state for _, state in resumed] == expected


@pytest.mark.parametrize("size", [1, 3])
def test_with_another_number_of_ranks_it_says_what_is_missed(tmp_path, size):
    """What all ranks had in common is restored on any number of them; what differed is named, and left as it was."""
    run_ranks(2, f"{JOBS}:begin", tmp_path, WORDS, 7)
    here = "here is 1" if size == 1 else "here are 3"
    why = f" (each of 2 ranks had its own, and {here})"
    for rank, (start, _, positions) in enumerate(run_ranks(size, f"{JOBS}:resume_alone", tmp_path, True)):
        assert start["missed"] == (f"position{why}", f"the random number generators{why}")
        assert start["done"] == ("model", "optimizer 0", "lr_scheduler 0", "shared", "loop position")
        assert positions == (100 * rank, 5)


def test_one_file_holds_the_model_as_it_is_without_its_wrapper(tmp_path):
    """The names have no ``module.``, a model in no wrapper loads them, and one saved with it is loaded as well."""
    run_ranks(2, f"{JOBS}:begin", tmp_path, WORDS, 2)
    (name,) = [name for name in os.listdir(tmp_path) if name.endswith(".ckpt")]
    saved = torch.load(tmp_path / name, weights_only=True)
    assert list(saved["state_dict"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for wrapped in (True, False):
        _, weights, _ = run_ranks(2, f"{JOBS}:resume_alone", tmp_path, wrapped)[1]
        assert all(torch.equal(weights[key], value) for key, value in saved["state_dict"].items())
    saved["state_dict"] = {f"module.{key}": value for key, value in saved["state_dict"].items()}
    torch.save(saved, tmp_path / "wrapped.ckpt")
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.4), torch.nn.Linear(8, 1))
    with pytest.warns(UserWarning, match="each of 2 ranks had its own, and here is 1"):
        Checkpointer(tmp_path / "other", model=model).resume(tmp_path / "wrapped.ckpt")
    assert all(torch.equal(value, saved["state_dict"][f"module.{key}"]) for key, value in model.state_dict().items())


def test_a_file_of_one_process_is_resumed_on_two(tmp_path):
    """A run that began on one rank goes on with two: the generators of the second cannot be known, and that is said."""
    run_ranks(1, f"{JOBS}:begin", tmp_path, WORDS, 4)
    found = run_ranks(2, f"{JOBS}:resume_alone", tmp_path, True)
    for start, _, positions in found:
        assert start["missed"] == ("the random number generators (1 rank had its own, and here are 2)",)
        assert positions == (4, 5)
