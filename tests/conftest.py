"""What all tests share."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from tests.support.proxy import Proxy
from tests.support.s3 import Rclone, named, why_not

# Two test processes on two cores: more threads each would only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is kept in the home of whoever runs the tests; those of the cache give it a place of its own.
os.environ["HOLDFAST_CACHE"] = "0"
# A request is tried once, unless a test is about trying again.
os.environ["HOLDFAST_PATIENCE"] = "0"


@pytest.fixture(autouse=True)
def _outside_the_repository(tmp_path, monkeypatch):
    """Run each test in an empty directory, so that nothing is written into the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_claim_is_left():
    """Give up what a test that ended without its close has claimed: its thread would live on into the next tests."""
    yield
    claims = sys.modules.get("holdfast.storage.remote.claims")
    if claims is not None:
        claims.give_up_all_claims()
        for thread in threading.enumerate():
            if thread.name == "holdfast-claim":
                thread.join(10)


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A running S3 server, with fsspec told how to reach it. Whoever kills it starts it again."""
    pytest.importorskip("s3fs")
    server = named()
    if server is not None:
        with server.told():
            yield server
        return
    if why_not():
        pytest.skip(why_not())
    server = Rclone(tmp_path_factory.mktemp("s3")).start()
    try:
        with server.told():
            yield server
    finally:
        server.kill()


@pytest.fixture
def own_s3(tmp_path_factory):
    """A running S3 server for one test alone, to be killed at will, with fsspec told how to reach it."""
    pytest.importorskip("s3fs")
    if why_not():
        pytest.skip(why_not())
    server = Rclone(tmp_path_factory.mktemp("own-s3")).start()
    try:
        with server.told():
            yield server
    finally:
        server.kill()


@pytest.fixture
def proxied(s3):
    """A proxy in front of ``s3``, with fsspec told to go through it."""
    with Proxy(s3.endpoint) as proxy, s3.behind(proxy).told():
        yield proxy
