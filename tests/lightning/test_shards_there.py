"""Strategies that shard, under Lightning, straight to an object store."""

from __future__ import annotations

import secrets

import pytest

import holdfast
from holdfast.storage import SEAL, open_store
from tests.lightning.test_ranks import WORDS
from tests.support.ranks import run_ranks

SEVERAL = "tests.lightning.jobs_ranks:several"
THERE = "tests.ranks.jobs_there:there"

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users."""


def together(size, s3, *jobs):
    return list(zip(*run_ranks(size, THERE, s3.options, SEVERAL, *jobs, timeout=100), strict=True))


@pytest.mark.long
def test_a_run_to_a_bucket_goes_on_bit_for_bit(s3, tmp_path):
    """A sharded run that is interrupted and resumed from a bucket ends as one that was not; what is there is whole."""
    url = s3.url(f"lightning-{secrets.token_hex(4)}")
    whole, first, second = together(
        2,
        s3,
        (str(tmp_path / "whole"), "sharded", WORDS, {}),
        (url, "sharded", WORDS, {"max_epochs": 2}),
        (url, "sharded", WORDS, {"ckpt_path": "last"}),
    )
    assert first[0]["error"] is None
    assert (second[0]["error"], second[0]["from"], second[0]["began"]) == (None, SEAL, first[0]["step"])
    assert {one["weights"] for one in (*whole, *second)} == {whole[0]["weights"]}
    assert second[0]["knows"] == second[1]["knows"] == whole[0]["knows"]
    listed = holdfast.catalog(f"{url}/d")
    assert all(holdfast.verify(item.path).facts.ranks == 2 for item in listed)
    assert open_store(f"{url}/d").leftovers(9) == []
