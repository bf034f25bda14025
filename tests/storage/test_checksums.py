"""What is sent arrives as it was, or is sent again: at the real server, behind a wire that changes bytes."""

from __future__ import annotations

import os
import re
import secrets
from functools import partial

import pytest

from holdfast import ConfigurationError
from holdfast.storage import open_store
from holdfast.storage.options import remember, use_options
from holdfast.storage.remote.connect import connect
from tests.support.proxy import Answer, Proxy
from tests.support.proxy_faults import spoil_request

LARGE = (20 << 20) + 5  # two parts


@pytest.fixture
def proxy(s3):
    with Proxy(s3.endpoint) as made:
        yield made


@pytest.fixture
def url(s3, proxy):
    found = s3.url(f"sums-{secrets.token_hex(4)}")
    remember(found, {**s3.behind(proxy).options, "patience": 30})
    yield found
    remember(found, {})


def other_etags():
    """The server's etags are no MD5, as where it encrypts with keys of a key service."""

    def fault(exchange):
        answer = exchange.forward()
        headers = [
            (name, f'"{secrets.token_hex(16)}"' if name.lower() == "etag" else said) for name, said in answer.headers
        ]
        exchange.answer(Answer(answer.status, headers, answer.body))

    return fault


@pytest.mark.parametrize(("kind", "size"), [("put", 5000), ("part", LARGE)])
@pytest.mark.parametrize("spoil", [partial(spoil_request, 4000), other_etags])
def test_bytes_that_change_on_their_way_are_sent_again(url, proxy, kind, size, spoil):
    """A put or a part that arrives changed, by the server's word for it or by its etag, is sent again."""
    store, data = open_store(url), os.urandom(size)
    store.put("before", [b"x"])  # the etags of this server are known by then
    rule = proxy.rule(spoil(), kinds={kind}, times=1)
    assert store.put("x.ckpt", [data]) == size
    assert rule.hits == 1
    assert proxy.counts[kind] >= 3
    assert store.read("x.ckpt", 0, size) == data


def test_a_wire_that_always_changes_bytes_is_an_error(s3, proxy, url):
    """Where every put arrives wrong the save fails with the server's word for it, and what was there stays."""
    store = open_store(url)
    store.put("x.ckpt", [b"before"])
    remember(url, {**s3.behind(proxy).options, "patience": 0.5})
    proxy.rule(spoil_request(at=1), kinds={"put"})
    with pytest.raises(ConnectionError, match="BadDigest"):
        open_store(url).put("x.ckpt", [b"after"])
    assert store.read("x.ckpt", 0, 9) == b"before"


@pytest.mark.parametrize("known", [False, True])
def test_a_server_with_other_etags_is_served(url, proxy, known):
    """Etags that are no MD5 refuse nobody: neither from the beginning, nor where they become so while a run saves."""
    store = open_store(url)
    if known:
        store.put("before", [b"x"])
    proxy.rule(other_etags(), kinds={"put"})
    for name in "abc":
        store.put(name, [name.encode() * 100])
    assert [store.read(name, 0, 200) for name in "abc"] == [name.encode() * 100 for name in "abc"]
    assert proxy.counts["put"] == 3 + 2 * known


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("md5", {"content-md5", "x-amz-checksum-crc32"}), ("crc32", {"x-amz-checksum-crc32"}), ("none", set())],
)
def test_the_option(s3, proxy, url, kind, sent):
    """``checksums`` says which go with the bytes; they are the right ones."""
    seen = []

    def look(exchange):
        seen.append({name.lower(): said for name, said in exchange.request_headers.items()})
        exchange.answer(exchange.forward())

    proxy.rule(look, kinds={"put"})
    remember(url, {**s3.behind(proxy).options, "checksums": kind})
    objects, key = connect(url)
    objects.put(f"{key}/x", b"123456789")
    found = {name: said for name, said in seen[0].items() if re.search("content-md5|x-amz-checksum-", name)}
    assert set(found) == sent
    assert (seen[0]["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD") == (kind == "md5")  # one is enough
    assert found.get("x-amz-checksum-crc32", "y/Q5Jg==") == "y/Q5Jg=="  # CRC-32's check value, cbf43926
    assert found.get("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==") == "JfnnlDI7RTiF9RgfG2JNCw=="


def test_a_wrong_option_is_told():
    """Another word is an error that names those there are."""
    with pytest.raises(ConfigurationError, match="`checksums` is one of md5, crc32, none, but got 'sha1'"):
        use_options({"checksums": "sha1"}, "s3://bucket/run")
