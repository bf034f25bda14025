"""Several ranks under Lightning: the same files, the same ranking and the same answers as one process gives."""

from __future__ import annotations

from datetime import timedelta

import pytest

import holdfast
from tests.lightning import jobs_ranks
from tests.support.lightning_cases import names
from tests.support.ranks import run_ranks, start_ranks

WORDS = {"save_top_k": 2, "save_last": True}


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users."""


def together(size, *jobs, timeout=100):
    """Run several fits on the same ranks; return for each what every rank has said."""
    given = [(str(folder), kind, words, options) for folder, kind, words, options in jobs]
    return list(zip(*run_ranks(size, jobs_ranks.several, *given, timeout=timeout), strict=True))


def test_two_ranks_of_ddp_are_as_one_process(tmp_path):
    """The same files, ranking and attributes, on each rank, whether the metric is the same on both or only rank 0's."""
    alone = jobs_ranks.train(str(tmp_path / "one"), "one", WORDS)
    cases = {"same": {}, "apart": {"apart": 10.0}, "lonely": {"only": 0}}
    told = together(2, *((tmp_path / name, "ddp", WORDS, {"model": model}) for name, model in cases.items()))
    for name, (first, second) in zip(cases, told, strict=True):
        assert first["error"] is None
        assert first["knows"] == second["knows"] == alone["knows"]
        assert first["weights"] == second["weights"]
        said = [sum("measured different things" in text for text in one["warnings"]) for one in (first, second)]
        assert said == [0 if name == "same" else 1, 0]
        assert names(tmp_path / name / "d") == names(tmp_path / "one" / "d")


def test_ddp_goes_on_with_fewer_ranks(tmp_path):
    """What two ranks have saved is where one goes on, with the ranking of both."""
    ((before, _),) = together(2, (tmp_path, "ddp", WORDS, {"max_epochs": 2}))
    after = jobs_ranks.train(str(tmp_path), "one", WORDS, ckpt_path="last")
    assert (after["error"], after["from"], after["began"]) == (None, "last.ckpt", before["step"])
    assert set(before["knows"]["scores"].values()) == {5.0, 3.0}
    assert after["knows"]["scores"]["epoch=1-step=4.ckpt"] == 3.0


@pytest.mark.long
def test_ddp_of_four_goes_on_with_two(tmp_path):
    """What four ranks have saved is where two go on, and both know the same."""
    (before,) = together(4, (tmp_path, "ddp", WORDS, {"max_epochs": 2}))
    ((first, second),) = together(2, (tmp_path, "ddp", WORDS, {"ckpt_path": "last"}))
    assert all(one["knows"] == before[0]["knows"] for one in before)
    assert (first["error"], first["from"], first["began"]) == (None, "last.ckpt", before[0]["step"])
    assert first["knows"] == second["knows"]


def test_shards_are_ranked_and_kept_as_files_are(tmp_path):
    """A strategy that shards gives directories of the same names and scores, the same on both ranks."""
    alone = jobs_ranks.train(str(tmp_path / "one"), "one", WORDS)
    ((first, second),) = together(2, (tmp_path / "two", "sharded", WORDS, {}))
    assert first["error"] is None
    assert first["knows"] == second["knows"] == alone["knows"]
    assert first["weights"] == second["weights"]
    assert sorted(path.name for path in (tmp_path / "two" / "d").glob("*.ckpt")) == names(tmp_path / "one" / "d")


@pytest.mark.parametrize("kind", [pytest.param("ddp", marks=pytest.mark.long), "sharded"])
def test_an_exception_on_one_rank_ends_both(tmp_path, kind):
    """A rank that fails alone is named to the other, which ends soon; neither saves by itself."""
    with start_ranks(2, jobs_ranks.interrupted, str(tmp_path), kind, 1) as run:
        first, second = run.wait(timeout=60)
    assert "out of memory" in second.value["error"]
    assert not first.late
    assert first.value is None or first.value["error"] is not None
    assert not any(name.startswith("exception") for name in names(tmp_path / "d"))


def test_an_exception_on_all_ranks_is_saved(tmp_path):
    """With ``save_on_exception`` ranks that fail at the same place save together, and end with their own error."""
    first, second = run_ranks(2, jobs_ranks.interrupted, str(tmp_path), "sharded", None, timeout=60)
    assert "out of memory" in first["error"]
    assert first["error"] == second["error"]
    (path,) = (tmp_path / "d").glob("exception-*.ckpt")
    assert holdfast.verify(path).facts.step == 3


def test_a_signal_to_one_rank_saves_and_ends_both(tmp_path):
    """SIGUSR1 to rank 1 alone: both save at the same step, commit, and then the signal acts on both."""
    first, second = run_ranks(2, jobs_ranks.signalled, str(tmp_path), "ddp", 1, timeout=60)
    assert "out of memory" in first["error"]  # what the handler of before raises
    assert first["error"] == second["error"]
    assert first["step"] == second["step"] < 60
    assert holdfast.verify(tmp_path / "d" / "last.ckpt").facts.step == first["step"]


def test_batches_that_save_nothing_are_silent(tmp_path):
    """Without a clock or signals the ranks tell each other nothing between saves; with either, ever more seldom."""
    quiet = {"save_on_signal": False, "every_n_train_steps": 1000}
    timed = {"save_on_signal": False, "train_time_interval": timedelta(hours=1)}
    for told in run_ranks(2, jobs_ranks.talk, str(tmp_path), quiet, timed, {"every_n_train_steps": 1000}, timeout=60):
        assert [error for error, _, _ in told] == [None, None, None]
        (_, silent, _), (_, by_clock, _), (_, by_signal, _) = told
        assert sum(silent[1:99]) == 0
        assert max(by_clock[1:99]) == max(by_signal[1:99]) == 1
        assert sum(by_clock[1:99]) < 60


def test_ranks_that_would_go_on_from_different_states_do_not(tmp_path):
    """Each rank sees a directory of its own, and one is empty: an error on both, before the first step, names both."""
    for told in run_ranks(2, jobs_ranks.apart, str(tmp_path), timeout=60):
        assert told["error"].startswith("LoadError")
        assert "rank 0: step 2" in told["error"]
        assert "rank 1: step 0 (nothing)" in told["error"]


def test_a_metric_of_another_rank_alone_is_told_of(tmp_path):
    """Rank 0 decides and lacks the metric: the error of both ranks says who has it."""
    ((first, second),) = together(2, (tmp_path, "ddp", {}, {"model": {"only": 1}}))
    assert first["error"] == second["error"]
    assert "Only on rank 1 it was logged" in first["error"]


@pytest.mark.parametrize("kind", ["ddp", pytest.param("sharded", marks=pytest.mark.long)])
def test_a_deadline_under_lightning(tmp_path, kind):
    """Both ranks save once and alike, before the end by rank 0's clock, and train on."""
    for told in run_ranks(2, jobs_ranks.before_the_end, str(tmp_path), kind, timeout=60):
        assert (told["error"], told["step"]) == (None, 40)
    (name,) = names(tmp_path / "d")
    assert name.startswith("preempted-")
    assert 10 <= holdfast.verify(tmp_path / "d" / name).facts.step < 30


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True])
def test_who_waits_in_a_collective_logs_why(tmp_path, killed):
    """Rank 1 fails while rank 0 waits for it in the training's own collective: rank 0's log names the cause."""
    with start_ranks(2, jobs_ranks.stuck, str(tmp_path), killed) as run:
        first, _ = run.wait(timeout=60)
    error, lines = first.value
    assert "out of memory" not in error
    cause = "its process has ended without a word" if killed else "RuntimeError: out of memory"
    assert any(f"rank 1 failed before this one did: {cause}" in line for line in lines)
