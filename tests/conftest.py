"""What all tests share."""

from __future__ import annotations

import os

import pytest

# Two test processes on two cores: more threads each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is kept in the home of whoever runs the tests; those of the cache give it a place of its own.
os.environ["HOLDFAST_CACHE"] = "0"


@pytest.fixture(autouse=True)
def _outside_the_repository(tmp_path, monkeypatch):
    """Run each test in an empty directory, so that nothing is written into the repository."""
    monkeypatch.chdir(tmp_path)
