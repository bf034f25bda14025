"""``Checkpointer`` in several processes: the same decision on every rank."""

from __future__ import annotations

import os

import pytest

from tests.front import jobs_ranks
from tests.support.ranks import run_ranks

WAYS = {"waiting": {"async_save": False}, "behind": {}}


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As the job says: the ranks are processes of their own."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("differs", ["value", "missing"])
def test_all_ranks_know_the_same(tmp_path, differs, way):
    """Where a metric differs between the ranks, or only rank 0 has it, rank 0's decides for all, also at a resume."""
    given = (str(tmp_path / "run"), differs, WAYS[way])
    first, second = run_ranks(2, jobs_ranks.with_metrics, *given)
    assert first == second == {"start": 0, "best": "m.ckpt", "scores": {"m.ckpt": 0.0, "m-v1.ckpt": 1.0}}
    assert sorted(os.listdir(tmp_path / "run")) == ["last.ckpt", "m-v1.ckpt", "m.ckpt"]
    again = run_ranks(2, jobs_ranks.with_metrics, *given)
    assert again == [{**first, "start": 3}] * 2


def test_all_ranks_count_the_same_failures(tmp_path):
    """A damaged newest one is passed over, and the third failure in a row raised, on every rank alike."""
    first, second = run_ranks(2, jobs_ranks.on_a_failing_disk, str(tmp_path / "run"))
    expected = {"resumed": 2, "skipped": [["epoch=0-step=3.ckpt", "epoch=0-step=3.ckpt.damaged"]], "steps": 3}
    assert first == second == {**expected, "warned": 2, "bound": True}


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_save_is_an_error_on_every_rank(tmp_path, way):
    """When rank 0 cannot write, every rank raises the error that names the path and the cause."""
    (tmp_path / "file").write_text("in the way")
    found = run_ranks(2, jobs_ranks.with_metrics, str(tmp_path / "file" / "run"), "value", WAYS[way])
    assert [answer["error"] for answer in found] == ["SaveError"] * 2
    assert all("Not a directory" in answer["message"] for answer in found)


def test_all_ranks_keep_by_the_rules_of_one(tmp_path):
    """Time, late metrics and improvements are those of rank 0: ranks whose clocks are decades apart keep the same."""
    first, second = run_ranks(2, jobs_ranks.with_rules, str(tmp_path / "run"))
    # At step 4 the one of step 1 is 1.5 h old; that of step 2 has the best bleu.
    assert first == second == {"start": 0, "best": "2.ckpt", "scores": ["2.ckpt"], "kept": ["2.ckpt", "4.ckpt"]}
    assert sorted(name for name in os.listdir(tmp_path / "run") if not name.startswith(".")) == ["2.ckpt", "4.ckpt"]
