"""Every request of the clients of Google's and Azure's stores meets every fault of a network, once."""

from __future__ import annotations

import contextlib
import random
import secrets

import pytest

from holdfast.storage import open_store
from tests.clouds.conftest import KINDS
from tests.support.proxy import Proxy
from tests.support.proxy_faults import refuse, reset_answer, reset_request, spoil_request, swallow, truncate

pytestmark = pytest.mark.long

SMALL = random.Random(1).randbytes(5_000)  # noqa: S311 - any bytes
LARGE = random.Random(2).randbytes(18 << 20)  # noqa: S311
FAULTS = {
    "busy": refuse(503, "ServerBusy"),
    "broken": refuse(500, "InternalError"),
    "cut before": reset_request(),
    "cut within": reset_request(2_000),
    "lost answer": swallow(),
    "cut answer": reset_answer(1_000),
    "changed": spoil_request(1_500),
    "short": truncate(1_000),
}


@pytest.fixture(scope="module", params=sorted(KINDS))
def behind(request, tmp_path_factory):
    """A proxy in front of an emulator, which names the proxy as its own address; and a URL there."""
    kind = KINDS[request.param]
    if kind.why_not():
        pytest.skip(kind.why_not())
    server = kind(tmp_path_factory.mktemp("behind"))
    with Proxy(f"http://127.0.0.1:{server.port}") as proxy:
        server.front = proxy.endpoint.rpartition(":")[2]
        server.start()
        try:
            server.make_bucket()
            with server.told():
                yield proxy, server.url
        finally:
            server.kill()


def put_small(store, name):
    store.put(name, [SMALL])


def put_large(store, name):
    store.put(name, [LARGE[: 9 << 20], LARGE[9 << 20 :]])


def link(store, name):
    store.link("source.ckpt", name)


def read(store, name):
    assert store.read("source.ckpt", 100, 4_000) == SMALL[100:4_100]
    store.put(name, [SMALL])


def remove(store, name):
    store.put(name, [b"old"])
    store.remove(name)
    assert name not in [blob.name for blob in store.blobs(1)]
    store.put(name, [SMALL])


ACTS = {put_small: SMALL, put_large: LARGE, link: SMALL, read: SMALL, remove: SMALL}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_every_fault_at_every_request(behind, act, monkeypatch):
    """It succeeds and is right, or is an error and has made nothing; what was there before is there; then it works."""
    monkeypatch.setenv("HOLDFAST_PATIENCE", "20")
    proxy, url = behind
    store = open_store(url(f"faults-{secrets.token_hex(4)}/run"))
    store.put("source.ckpt", [SMALL])
    before = len(proxy.asked)
    act(store, "count.ckpt")
    requests = len(proxy.asked) - before
    store.remove("count.ckpt")
    failed = 0
    for what, fault in FAULTS.items():
        for number in range(requests):
            rule = proxy.rule(fault, skip=number, times=1)
            with contextlib.suppress(OSError):
                try:
                    act(store, "x.ckpt")
                except OSError:
                    failed += 1
                    raise
            proxy.rules.remove(rule)
            assert rule.hits == 1, (what, number)
            data = store.read("x.ckpt", 0, len(LARGE) + 1) if store.exists("x.ckpt") else None
            assert data in (None, ACTS[act], b"old"), (what, number)
            assert [blob.name for blob in store.blobs(1)] == ["source.ckpt", *(["x.ckpt"] if data else [])]
            assert store.read("source.ckpt", 0, len(LARGE) + 1) == SMALL
            put_small(store, "x.ckpt")
            assert store.read("x.ckpt", 0, len(LARGE) + 1) == SMALL
            store.remove("x.ckpt")
    assert failed <= len(FAULTS), f"{failed} of {requests * len(FAULTS)} failed"
