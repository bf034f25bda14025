"""Places to bring checkpoints to."""

from __future__ import annotations

import os

import pytest

from holdfast.storage import open_store


@pytest.fixture
def memory():
    """A URL in this process's memory, of this test alone."""
    return f"memory://mirror-{os.urandom(6).hex()}/run"


@pytest.fixture
def bucket(s3):
    """A URL on the real server, of this test alone."""
    return f"s3://bucket/{os.urandom(6).hex()}/run"


@pytest.fixture(params=["memory", "bucket", "folder"])
def anywhere(request, tmp_path):
    """Each kind of place that a mirror can be."""
    return str(tmp_path / "mirror") if request.param == "folder" else request.getfixturevalue(request.param)


@pytest.fixture
def local(tmp_path):
    """The directory of a run."""
    return open_store(tmp_path / "run")
