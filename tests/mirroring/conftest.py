"""Places to bring checkpoints to."""

from __future__ import annotations

import os

import pytest

from holdfast.storage import open_store
from holdfast.storage.remote import RemoteStore, uploading
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote.objects import PartRules
from tests.mirroring.makings import PART
from tests.storage.objects_in_memory import ObjectsInMemory


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


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of a MiB."""
    monkeypatch.setattr(cutting, "PART", PART)
    monkeypatch.setattr(uploading, "PART", PART)


@pytest.fixture
def objects():
    """A server in memory that takes parts of any size."""
    return ObjectsInMemory(PartRules(least=1))


@pytest.fixture
def remote(objects):
    """The store on it."""
    return RemoteStore("s3://bucket/run", "bucket/run", objects)
