"""Plain loops whose ranks come apart: one fails, one has more data than the others, each measures something else."""

from __future__ import annotations

import math

import pytest

from holdfast.front.metrics_apart import difference
from tests.ranks import jobs_loop_apart as jobs
from tests.support.ranks import run_ranks


@pytest.mark.parametrize(("who", "async_save"), [(1, True), (0, False)])
def test_an_exception_on_one_rank_ends_all(tmp_path, who, async_save):
    """The others get an error that names the rank and the cause; what is committed is whole, none is saved alone."""
    outcomes = run_ranks(3, jobs.one_fails, str(tmp_path), who, async_save, timeout=50)
    for rank, (kind, named, text, seconds) in enumerate(outcomes):
        assert kind == ("MemoryError" if rank == who else "RankError")
        assert named == (None if rank == who else who)
        assert "no room on this GPU" in text
        assert seconds < 25
    names = jobs.whole(tmp_path)
    assert {"epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt"} <= set(names)
    assert not any("exception" in name for name in names)


def test_an_exception_on_all_ranks_is_saved_once(tmp_path):
    """Ranks that fail at the same place save the interrupted state together, and can go on after it."""
    for names, step in run_ranks(2, jobs.all_fail, str(tmp_path)):
        assert names == ["epoch=0-step=3.ckpt", "exception-epoch=0-step=4.ckpt"]
        assert step == 4


@pytest.mark.parametrize("longer", [0, 1])
def test_ranks_with_uneven_data_are_told(tmp_path, longer):
    """One closes while the other is at step 100: both get an error that names both places, whoever it is."""
    texts = run_ranks(2, jobs.uneven, str(tmp_path), longer)
    assert texts[0] == texts[1]
    for words in ("rank 0", "rank 1", "step 100", "train end (step 99)"):
        assert words in texts[0]


def test_epochs_of_uneven_length_are_none_of_it(tmp_path):
    """Ranks that call the same in the same order may be at different steps: rank 0's state and step are saved."""
    assert run_ranks(2, jobs.uneven_epochs, str(tmp_path)) == [["epoch=0-step=5.ckpt"]] * 2


@pytest.mark.parametrize(
    ("values", "best", "words"),
    [
        ([[0.5, 0.4, 0.3], [0.1, 0.6, 0.9]], 0.3, ["0.5 on rank 0", "0.1 on rank 1"]),
        ([[0.5, 0.4, 0.3], [None, None, None]], 0.3, ["0.5 on rank 0", "missing on rank 1"]),
        ([[0.5, 0.4, 0.3], [math.nan, 0.4, 0.3]], 0.3, ["0.5 on rank 0", "nan on rank 1"]),
    ],
)
def test_metrics_that_differ_are_rank_0s(tmp_path, values, best, words):
    """It neither hangs nor fails; rank 0's values rank; one warning names metric, values, ranks, cure."""
    outcomes = run_ranks(2, jobs.measuring, str(tmp_path), values)
    assert [len(told) for told, _, _, _ in outcomes] == [1, 0]
    for word in ("'loss'", "sync_dist", *words):
        assert word in outcomes[0][0][0]
    for _, score, error, names in outcomes:
        assert (score, error, len(names)) == (pytest.approx(best), None, 2)


def test_a_metric_that_rank_0_lacks_is_missing_on_all(tmp_path):
    """Where only another rank measures what is monitored, all raise the same, at once, and go on."""
    outcomes = run_ranks(2, jobs.measuring, str(tmp_path), [[None, None], [0.1, 0.2]])
    assert [error for _, _, error, _ in outcomes] == ["MissingMetricError"] * 2


def test_what_differs_is_told_in_one_sentence():
    """Equal metrics, equal NaN and the noise of a sum in another order say nothing; a thousand ranks are counted."""
    nan = math.nan
    assert difference([{"a": 1.0, "b": nan}, {"a": 1.0 + 1e-9, "b": nan}]) == ""
    text = difference([{"a": 1.0}, *[{"a": 2.0}] * 999, {"a": 1.0, "z": 3.0}])
    assert "'a' is 1 on rank 0, 2 on rank 1, 2 on rank 2, 2 on rank 3, 2 on rank 4, and differs on 995 more" in text
    assert "'z' is missing on rank 0, 3 on rank 1000" in text
