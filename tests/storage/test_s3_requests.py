"""Requests to a real S3 server through a proxy: what is sent, what is refused, what never comes."""

from __future__ import annotations

import logging
import os
import secrets
import socket

import fsspec.config
import pytest

from holdfast.storage import open_store
from holdfast.storage.options import remember
from holdfast.storage.remote import s3 as s3_module
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.s3 import S3Objects
from tests.support.proxy import Proxy
from tests.support.proxy_faults import expired, refuse

DATA = bytes(range(256)) * 20
NO_RETRY = {"patience": 0, "config_kwargs": {"read_timeout": 1, "connect_timeout": 1}}


@pytest.fixture
def proxy(s3):
    with Proxy(s3.endpoint) as made:
        yield made


@pytest.fixture
def url(s3):
    found = s3.url(f"requests-{secrets.token_hex(4)}")
    yield found
    remember(found, {})


def at(endpoint):
    return {"client_kwargs": {"endpoint_url": endpoint}}


def reached(url, options):
    """The objects and the key of a URL with options of its own."""
    remember(url, {**options, **NO_RETRY})
    return connect(url)


@pytest.fixture
def objects(s3, proxy, url):
    return reached(url, s3.behind(proxy).options)


@pytest.mark.parametrize("size", [100, 20_000_000])
def test_a_server_that_says_nothing_is_not_waited_for_without_end(url, size):
    """A server that takes a connection and neither reads nor answers is a TimeoutError, for small and large bodies."""
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        objects, key = reached(url, {"key": "someaccesskey", "secret": "x" * 20, **at(endpoint)})
        with pytest.raises(TimeoutError, match="put_object"):
            objects.put(f"{key}/x", bytes(size))


def test_what_is_sent_is_memory_of_any_kind(objects):
    """Bytes, a view, a view of wider numbers and pieces are sent as their bytes; none at all is an empty object."""
    made, key = objects
    numbers = memoryview(bytearray(DATA)).cast("I")
    for body in (DATA, memoryview(DATA), numbers, [DATA[:7], memoryview(DATA)[7:]]):
        assert made.put(f"{key}/x", body).size == len(DATA)
        assert made.get(f"{key}/x", 0, len(DATA)) == DATA
    assert made.put(f"{key}/x", b"").size == made.head(f"{key}/x").size == 0


def test_a_checksum_that_is_refused_is_left_out(objects, proxy):
    """A server that does not know checksums is served without them, from then on."""
    made, key = objects
    proxy.rule(refuse(501, "NotImplemented", "x-amz-checksum-crc32 is not implemented"), kinds={"put"}, times=1)
    for _ in range(2):
        made.put(f"{key}/x", DATA)
    assert made.get(f"{key}/x", 0, 9) == DATA[:9]
    assert proxy.counts["put"] == 3


def test_a_refusal_that_is_about_something_else_stays(objects, proxy):
    """A server that refuses a request for another reason is asked once, and its reason told."""
    made, key = objects
    proxy.rule(refuse(400, "InvalidRequest", "no such thing as a bucket of cheese"), kinds={"put"})
    with pytest.raises(OSError, match="bucket of cheese"):
        made.put(f"{key}/x", DATA)
    assert proxy.counts["put"] == 1


@pytest.mark.parametrize("code", ["NotImplemented", "MissingContentMD5"])
def test_removal_where_there_is_none_of_many(objects, proxy, code):
    """A server that cannot remove many objects at once removes them one by one."""
    made, key = objects
    names = [f"{key}/{number}" for number in range(3)]
    for name in names:
        made.put(name, b"x")
    proxy.rule(refuse(400, code), kinds={"remove"}, times=1)
    made.remove([*names, f"{key}/never"])
    assert [*made.list(f"{key}/")] == []


def test_a_removal_that_was_refused_in_part(objects, proxy, monkeypatch):
    """An object that the server says it has not removed is an error that names it and the server's reason."""
    made, key = objects
    said = {"Errors": [{"Key": "x", "Code": "AccessDenied", "Message": "locked"}]}
    monkeypatch.setattr(S3Objects, "_call", lambda *_, **__: said)
    with pytest.raises(PermissionError, match=r"1 objects were not removed, among them .*/x.*AccessDenied \(locked\)"):
        made.remove([f"{key}/x", f"{key}/y"])


def test_a_key_that_is_listed_twice_is_one_blob(objects, url, monkeypatch):
    """A server that lists an object twice, as one does after two puts at a time, has one blob there, not two."""
    one = {"Key": url.rpartition("/")[2] + "/x.ckpt", "Size": 5, "ETag": '"e"'}
    pages = iter([{"Contents": [one, one], "IsTruncated": True, "NextContinuationToken": "t"}, {"Contents": [one]}])
    monkeypatch.setattr(S3Objects, "_call", lambda *_, **__: next(pages))
    assert [blob.name for blob in open_store(url).blobs()] == ["x.ckpt"]


def test_a_large_copy_goes_in_parts(objects, monkeypatch):
    """What is larger than one request copies is copied in parts, exactly, or by one where the server takes no parts."""
    made, key = objects
    monkeypatch.setattr(s3_module, "_COPY", 5 << 20)
    data = os.urandom((12 << 20) + 7)
    made.put(f"{key}/a", data)
    made.copy(f"{key}/a", f"{key}/b")
    assert made.get(f"{key}/b", 0, len(data) + 1) == data
    assert made.uploads(key) == []


def test_a_large_copy_where_there_are_no_parts_of_copies(objects, proxy, monkeypatch):
    """A server that does not know copies in parts is asked for the whole, and no upload is left."""
    made, key = objects
    monkeypatch.setattr(s3_module, "_COPY", 1 << 10)
    made.put(f"{key}/a", DATA)
    monkeypatch.setattr(s3_module, "_COPIES", 1)
    proxy.rule(refuse(501, "NotImplemented"), kinds={"copy"}, times=1)
    made.copy(f"{key}/a", f"{key}/b")
    assert made.get(f"{key}/b", 0, len(DATA)) == DATA
    assert made.uploads(key) == []
    assert proxy.counts["copy"] > 1


def test_credentials_that_have_expired_are_asked_for_anew(s3, proxy, url, monkeypatch):
    """Where the environment gives credentials, those that have expired are looked for again before it is an error."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
    monkeypatch.setattr(fsspec.config, "conf", {})
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    proxy.rule(expired(), kinds={"put"}, times=1)
    objects, key = reached(url, {"key": None, "secret": None, **at(proxy.endpoint)})
    objects.put(f"{key}/x", DATA)
    assert objects.get(f"{key}/x", 0, 5) == DATA[:5]


def test_credentials_that_were_handed_over_and_have_expired(objects, proxy):
    """Credentials of the storage options cannot be asked for anew: one request, and an error that says what to do."""
    made, key = objects
    proxy.rule(expired(), kinds={"put"})
    with pytest.raises(PermissionError, match="have expired, get new ones"):
        made.put(f"{key}/x", DATA)
    assert proxy.counts["put"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        (403, "AccessDenied", PermissionError),
        (403, "SignatureDoesNotMatch", PermissionError),
        (404, "NoSuchBucket", FileNotFoundError),
        (412, "PreconditionFailed", FileExistsError),
        (503, "SlowDown", ConnectionError),
        (500, "InternalError", ConnectionError),
        (429, "TooManyRequests", ConnectionError),
        (400, "RequestTimeout", TimeoutError),
        (400, "SomethingElse", OSError),
    ],
)
def test_no_error_has_a_secret(url, proxy, caplog, answer):
    """Whatever a server answers, and even if it repeats our secrets, they are in no error, cause or log."""
    status, code, kind = answer
    secret, token = "s3cretValue+" + secrets.token_hex(6), "t0kenValue/" + secrets.token_hex(6)
    said = f"{secret} {token} http://me:{secret}@host/x?X-Amz-Signature={token} X-Amz-Credential={token}"
    proxy.rule(refuse(status, code, said.replace("&", "&amp;")), kinds={"put"})
    options = {"key": "someaccesskey", "secret": secret, "token": token, **at(proxy.endpoint)}
    objects, key = reached(url, options)
    caplog.set_level(logging.DEBUG, "holdfast")
    with pytest.raises(kind) as caught:
        objects.put(f"{key}/x", DATA)
    shown, error = [caplog.text], caught.value
    while error is not None:
        shown.append(repr(error) + str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert code in shown[1]
    assert secret not in "".join(shown)
    assert token not in "".join(shown)
    assert secret not in repr(open_store(url))


def test_an_endpoint_that_cannot_be_reached_shows_no_password(url):
    """An endpoint with a password in it, that nobody answers at, is told without it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"key": "someaccesskey", "secret": "x" * 20, **at(f"http://me:letmein@127.0.0.1:{port}")}
    objects, key = reached(url, options)
    with pytest.raises(OSError, match="put_object") as caught:
        objects.put(f"{key}/x", DATA)
    assert "letmein" not in str(caught.value)
