"""What is wrong from the beginning is told at once, with what to do about it."""

from __future__ import annotations

import secrets
import socket

import pytest

import holdfast
from holdfast import Checkpointer
from holdfast.storage.options import remember
from tests.support.proxy import Proxy
from tests.support.proxy_faults import refuse


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
