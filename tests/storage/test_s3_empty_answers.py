"""Answers of an S3 server that claim success and say nothing, or something else than what was asked for."""

from __future__ import annotations

import os
import secrets

import pytest

from holdfast.storage.options import remember
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.uploading import upload_chunks
from tests.support.proxy import Answer
from tests.support.proxy_faults import truncate

DATA = os.urandom(300_007)
LARGE = DATA * 56
XML = [("Content-Type", "text/xml")]


@pytest.fixture
def url(proxied, s3):
    found = s3.url(f"empty-{secrets.token_hex(4)}")
    remember(found, {"patience": 20})
    yield found
    remember(found, {})


def stranger():
    """The request is done by nobody, and a page comes that something in between has made."""

    def fault(exchange):
        exchange.take()
        exchange.answer(Answer(200, XML, b"<html><body>Log in first</body></html>"))

    return fault


@pytest.mark.parametrize("fault", [truncate(0), stranger()], ids=["nothing", "a stranger's page"])
def test_a_listing_without_a_word_is_not_one_of_nothing(proxied, url, fault):
    """An empty answer to a listing is asked for again: by it all that is committed, and each rival, would be gone."""
    objects, key = connect(url)
    objects.put(f"{key}/x", DATA[:9])
    proxied.rule(fault, kinds={"list"}, times=2)
    assert [item.key for item in objects.list(key)] == [f"{key}/x"]
    assert list(objects.list(f"{key}/none")) == []


def test_the_end_of_an_upload_without_a_word_is_not_taken_for_done(proxied, url):
    """An object is replaced, or it is an error; one of the same size that was there before proves nothing."""
    objects, key = connect(url)
    objects.put(f"{key}/x", bytes(len(LARGE)))
    proxied.rule(truncate(0), kinds={"complete"}, times=1)
    assert upload_chunks(objects, f"{key}/x", [LARGE]).size == len(LARGE)
    assert objects.get(f"{key}/x", 0, len(LARGE)) == LARGE


def test_an_upload_that_was_begun_without_a_word_is_begun_again(proxied, url):
    """An answer without the upload's id is no upload."""
    objects, key = connect(url)
    proxied.rule(truncate(0), kinds={"begin"}, times=1)
    upload = objects.begin(f"{key}/x")
    objects.complete(f"{key}/x", upload, [objects.part(f"{key}/x", upload, 1, DATA)])
    assert objects.get(f"{key}/x", 0, len(DATA)) == DATA


@pytest.mark.parametrize("client", ["auto", "fsspec"])
def test_other_bytes_than_were_asked_for_are_not_taken(proxied, url, client):
    """An answer that begins elsewhere in the object is asked for again, by the first word of it."""
    remember(url, {"client": client, "patience": 20})
    objects, key = connect(url)
    objects.put(f"{key}/x", DATA)
    for headers in ([("Content-Range", f"bytes 0-{len(DATA) - 8}/{len(DATA)}")], []):

        def fault(exchange, headers=headers):
            exchange.answer(Answer(206 if headers else 200, headers, DATA[:-7]))

        proxied.rule(fault, kinds={"get"}, times=1)
        assert objects.get(f"{key}/x", 7, len(DATA)) == DATA[7:]
