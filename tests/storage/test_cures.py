"""What is wrong from the beginning is told at once, with what to do about it."""

from __future__ import annotations

import secrets
import shutil
import socket
import ssl
import subprocess

import pytest

import holdfast
from holdfast import Checkpointer
from holdfast.storage.options import remember
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.failures import translated
from holdfast.storage.remote.retrying import worth_another_try
from tests.support.proxy import Proxy
from tests.support.proxy_faults import refuse
from tests.support.s3 import Rclone


@pytest.fixture
def url(s3):
    found = s3.url(f"cures-{secrets.token_hex(4)}/run")  # a bucket keeps its own options
    yield found
    remember(found, {})


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    monkeypatch.setenv("HOLDFAST_PATIENCE", "3600")  # what is not told at once is not told at all


def act(url, options):
    """A run, and a load: each with what it says."""
    for work in (
        lambda: Checkpointer(url, storage_options=options),
        lambda: holdfast.load(f"{url}/x.ckpt", storage_options=options),
        lambda: holdfast.verify(f"{url}/x.ckpt", storage_options=options),
        lambda: holdfast.open(f"{url}/x.ckpt", storage_options=options),
    ):
        with pytest.raises(OSError, match=": ") as caught:
            work()
        yield caught.value


@pytest.mark.parametrize("word", ["key", "secret"])
def test_wrong_credentials(s3, url, word):
    """A wrong key or secret is a PermissionError with the server's word, and where credentials are looked for."""
    code = {"key": "InvalidAccessKeyId", "secret": "SignatureDoesNotMatch"}[word]
    for error in act(url, {**s3.options, word: "wrongwrongwrong"}):
        assert isinstance(error, PermissionError)
        assert code in str(error)
        assert "are the credentials right" in str(error)
        assert "wrongwrongwrong" not in str(error)


def test_no_bucket(s3):
    """A bucket that is not there is a FileNotFoundError that says so, and not that a checkpoint is missing."""
    for error in act("s3://neverwas/run", s3.options):
        assert isinstance(error, FileNotFoundError)
        assert "NoSuchBucket" in str(error)
        assert "has to be made" in str(error)


def test_no_right(s3, url):
    """Credentials without the right to do something are a PermissionError with the server's reason."""
    with Proxy(s3.endpoint) as proxy:
        proxy.rule(refuse(403, "AccessDenied", "not in this bucket"))
        for error in act(url, s3.behind(proxy).options):
            assert isinstance(error, PermissionError)


def test_no_such_host(s3, url, monkeypatch):
    """A host that no server for names knows is an error at once, if nothing was ever reached by that name."""

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    options = {**s3.options, "client_kwargs": {"endpoint_url": f"http://{secrets.token_hex(4)}.invalid:9000"}}
    for error in act(url, options):
        assert "is the endpoint right" in str(error)


def test_a_certificate_that_is_not_trusted_is_known_by_its_error():
    """What botocore says of one has the cure; a file that is missing elsewhere is not taken for one of certificates."""
    from botocore.exceptions import SSLError

    error = SSLError(endpoint_url="https://host", error=ssl.SSLCertVerificationError("self-signed certificate"))
    assert "is not one that is trusted" in str(translated(error, "put x"))
    broken = SSLError(endpoint_url="https://host", error=ssl.SSLEOFError("cut"))
    broken.__context__ = FileNotFoundError("bucket/x")  # a look that failed before
    assert worth_another_try(translated(broken, "put x"))
    assert "certificate" not in str(translated(broken, "put x"))


@pytest.mark.long
def test_a_certificate_that_is_not_trusted_and_a_file_of_them_that_is_not_there(tmp_path, s3):
    """Both are told at once, with where such a file is named; with it the server is reached, by either client."""
    names = ("cert.pem", "key.pem")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-out", names[0], "-keyout", names[1], *subject]
    if shutil.which("openssl") is None or not s3.killable:
        pytest.skip("no openssl, or no server of our own")
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    paths = [str(tmp_path / name) for name in names]
    server = Rclone(tmp_path / "server", secure=paths).start()
    try:
        for client in ("auto", "fsspec"):
            for word, told in (({}, "is not one that is trusted"), ({"verify": "/nowhere.pem"}, "is that the path")):
                for size in (9, 300_000):
                    with pytest.raises(OSError, match=told):
                        there(server, client, word).put("bucket/x", bytes(size))
            objects = there(server, client, {"verify": paths[0]})
            objects.put("bucket/x", b"x" * 300_000)
            assert objects.get("bucket/x", 0, 300_000) == b"x" * 300_000
    finally:
        server.kill()


def there(server, client, words):
    """The objects of a server, by a client that is told so."""
    url = f"s3://bucket/{secrets.token_hex(4)}"
    options = {**server.options, "client": client, "client_kwargs": {"endpoint_url": server.endpoint, **words}}
    remember(url, options)
    try:
        return connect(url)[0]
    finally:
        remember(url, {})
