"""The emulators, one of each a run; a test that kills one has its own."""

from __future__ import annotations

import pytest

from tests.support.clouds import Azure, Gcs

KINDS = {"gs": Gcs, "az": Azure}


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """A function that returns the running emulator of a scheme, with fsspec told how to reach it."""
    running, told = {}, []

    def find(scheme):
        kind = KINDS[scheme]
        if kind.why_not():
            pytest.skip(kind.why_not())
        if scheme not in running:
            running[scheme] = kind(tmp_path_factory.mktemp(scheme)).start()
            running[scheme].make_bucket()
            told.append(running[scheme].told())
            told[-1].__enter__()
        return running[scheme]

    yield find
    for one in told:
        one.__exit__(None, None, None)
    for server in running.values():
        server.kill()


@pytest.fixture(params=sorted(KINDS))
def cloud(request, clouds):
    """Each emulator in turn."""
    return clouds(request.param)


@pytest.fixture(params=sorted(KINDS))
def own_cloud(request, tmp_path_factory):
    """An emulator for one test alone, to be killed at will."""
    kind = KINDS[request.param]
    if kind.why_not():
        pytest.skip(kind.why_not())
    server = kind(tmp_path_factory.mktemp("own")).start()
    try:
        server.make_bucket()
        with server.told():
            yield server
    finally:
        server.kill()
