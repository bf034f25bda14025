"""Several ranks under Lightning: the same files, the same ranking and the same answers as one process gives."""

from __future__ import annotations

import pytest

from tests.lightning import jobs_ranks
from tests.support.lightning_cases import names
from tests.support.ranks import run_ranks

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
