"""Sharded runs straight to an object store: several ranks, one prefix, a real server."""

from __future__ import annotations

import secrets

import pytest
import torch

import holdfast
from holdfast.storage import SEAL, open_store
from tests.support.ranks import run_ranks
from tests.support.shards import unmarked

WORDS = {"every_n_train_steps": 2, "save_top_k": -1, "save_last": "link"}
JOBS = "tests.ranks.jobs_sharded_loop"
THERE = "tests.ranks.jobs_there:there"

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def url(s3):
    return s3.url(f"ranks-{secrets.token_hex(4)}")


def names(url):
    return [item.name for item in holdfast.catalog(url)]


def test_interrupted_and_resumed_there_is_uninterrupted(s3, url):
    """A sharded run to a bucket changes nothing, ends bit-identical after a resume, and leaves whole checkpoints."""
    expected = run_ranks(2, f"{JOBS}:untouched")
    run_ranks(2, THERE, s3.options, f"{JOBS}:trained", url, WORDS, 7)
    again = run_ranks(2, THERE, s3.options, f"{JOBS}:go_on", url, WORDS)
    assert [(start["step"], start["missed"]) for start, _ in again] == [(6, ())] * 2
    assert [state for _, state in again] == expected
    for name in names(url):
        assert holdfast.verify(f"{url}/{name}").facts.ranks == 2
        files = sorted(unmarked(blob.name) for blob in open_store(url).files(name))
        assert files == sorted([".metadata", "__0_0.distcp", "__1_0.distcp", SEAL, "holdfast.keys"])
    assert open_store(url).leftovers(9) == []
    assert "last.ckpt" in names(url)


@pytest.mark.long
def test_saved_there_on_some_ranks_and_loaded_on_others(s3, url):
    """Two ranks save into a bucket, three and one read it: the same to the bit."""
    saved = run_ranks(2, THERE, s3.options, f"{JOBS}:trained", url, {"every_n_train_steps": 3}, 3, "adamw")
    for size in (3, 1):
        for start, state in run_ranks(size, THERE, s3.options, f"{JOBS}:resumed", url, None, "adamw", torch.float32):
            assert start["step"] == 3
            assert state[:2] == saved[0][:2]
