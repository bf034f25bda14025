"""``Checkpointer`` in several processes: the same decision on every rank."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "ranks_loop.py"
RULES = Path(__file__).parent / "ranks_rules.py"
FAILING = Path(__file__).parent / "ranks_failing.py"


def answers(folder, differs="value", script=SCRIPT):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(script), str(folder), differs]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = [json.loads(text) for text in re.findall(r"ANSWER (\{.*?\}+)(?=ANSWER|\s|$)", done.stdout)]
    assert len(found) == 2, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("differs", ["value", "missing"])
def test_all_ranks_know_the_same(tmp_path, differs):
    """Where a metric differs between the ranks, or only rank 0 has it, rank 0's decides for all, also at a resume."""
    first, second = answers(tmp_path / "run", differs)
    assert first == second == {"start": 0, "best": "m.ckpt", "scores": {"m.ckpt": 0.0, "m-v1.ckpt": 1.0}}
    assert sorted(os.listdir(tmp_path / "run")) == ["last.ckpt", "m-v1.ckpt", "m.ckpt"]
    again = answers(tmp_path / "run", differs)
    assert again == [{**first, "start": 3}] * 2


def test_all_ranks_count_the_same_failures(tmp_path):
    """A damaged newest one is passed over, and the third failure in a row raised, on every rank alike."""
    first, second = answers(tmp_path / "run", script=FAILING)
    expected = {"resumed": 2, "skipped": [["epoch=0-step=3.ckpt", "epoch=0-step=3.ckpt.damaged"]], "steps": 3}
    assert first == second == {**expected, "warned": 2, "bound": True}


def test_a_failed_save_is_an_error_on_every_rank(tmp_path):
    """When rank 0 cannot write, every rank raises the error that names the path and the cause."""
    (tmp_path / "file").write_text("in the way")
    found = answers(tmp_path / "file" / "run")
    assert [answer["error"] for answer in found] == ["SaveError"] * 2
    assert all("Not a directory" in answer["message"] for answer in found)


def test_all_ranks_keep_by_the_rules_of_one(tmp_path):
    """Time, late metrics and improvements are those of rank 0: ranks whose clocks are decades apart keep the same."""
    first, second = answers(tmp_path / "run", script=RULES)
    # At step 4 the one of step 1 is 1.5 h old; that of step 2 has the best bleu.
    assert first == second == {"start": 0, "best": "2.ckpt", "scores": ["2.ckpt"], "kept": ["2.ckpt", "4.ckpt"]}
    assert sorted(name for name in os.listdir(tmp_path / "run") if not name.startswith(".")) == ["2.ckpt", "4.ckpt"]
