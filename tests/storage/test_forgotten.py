"""A server that has forgotten an upload: it is begun anew, once, and then there is the object or an error."""

from __future__ import annotations

import mmap
import os
import secrets

import pytest

from holdfast.errors import DirectoryInUseError
from holdfast.storage import open_store
from holdfast.storage.options import remember
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote import uploading
from holdfast.storage.remote.anew import ForgottenError
from holdfast.storage.remote.connect import wrapping
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.s3 import S3Objects
from holdfast.storage.remote.uploading import MemorySource, upload, upload_chunks
from tests.storage.objects_in_memory import ObjectsInMemory
from tests.support.proxy_faults import spoil_request

PART = 1 << 20
DATA = os.urandom(5 * PART + 12345)
REAL = 5 << 20  # the least that a real server takes


@pytest.fixture
def objects(monkeypatch):
    for module in (cutting, uploading):
        monkeypatch.setattr(module, "PART", PART)
    made = ObjectsInMemory(PartRules(least=1))
    made.kept["b/x"] = b"before"
    return made


def _image(data=DATA):
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memoryview(memory)


def _forgetting(objects, kind, times=1):
    """Have the server forget all uploads at a kind of request, so many times: of parts at the third."""
    left = [times]

    def before(asked, number):
        if asked == kind and number in (0, 3) and left[0]:
            left[0] -= 1
            objects.underway.clear()

    objects.before = before


def _send(objects, way, **words):
    if way == "chunks":
        image = _image()
        return upload_chunks(objects, "b/x", [image[: 2 * PART], image[2 * PART :], b"the end"], workers=1, **words)
    return upload(objects, "b/x", MemorySource(DATA + b"the end"), workers=1, **words)


@pytest.mark.parametrize("way", ["chunks", "source"])
@pytest.mark.parametrize("kind", ["part", "complete"])
def test_a_forgotten_upload_is_begun_anew(objects, way, kind):
    """An image and a source are sent once more from the first byte, also if the server forgets at the very end."""
    _forgetting(objects, kind)
    assert _send(objects, way).size == len(DATA) + 7
    assert objects.kept["b/x"] == DATA + b"the end"
    assert len(objects.named("begin")) == 2
    assert objects.underway == {}


@pytest.mark.parametrize("way", ["chunks", "source"])
def test_not_for_ever(objects, way):
    """Forgotten twice is an error that says that nothing was committed, and the object from before is whole."""
    _forgetting(objects, "part", times=9)
    with pytest.raises(ForgottenError, match=r"has forgotten .* Nothing of this upload is committed.* begun anew once"):
        _send(objects, way)
    assert objects.kept["b/x"] == b"before"
    assert len(objects.named("begin")) == 2


def test_not_once_the_bytes_are_gone(objects):
    """Of chunks with memory of their own only a few are held: then the error says that they are gone."""
    _forgetting(objects, "complete")
    chunks = (bytes(DATA[at : at + PART]) for at in range(0, len(DATA), PART))
    with pytest.raises(ForgottenError, match=r"as a stream and are gone\. Nothing of this upload is committed"):
        upload_chunks(objects, "b/x", chunks, workers=1)
    assert objects.kept["b/x"] == b"before"


@pytest.mark.parametrize("way", ["chunks", "source"])
def test_not_for_a_run_that_has_lost_its_claim(objects, way):
    """Another run that took the prefix over has aborted the upload on purpose: it is not begun anew."""

    def lost():
        raise DirectoryInUseError("b", "another run")

    _forgetting(objects, "part")
    with pytest.raises(DirectoryInUseError):
        _send(objects, way, again=lost)
    assert len(objects.named("begin")) == 1
    assert objects.kept["b/x"] == b"before"


def test_what_is_noted_and_counted_is_the_new_upload(objects):
    """The ticket that is kept is the new upload's, of equal parts, and no byte is counted twice."""
    _forgetting(objects, "part")
    kept, sent = [], []
    _send(objects, "source", keep=kept.append, progress=sent.append)
    assert len({ticket.upload for ticket in kept}) == 2
    assert {ticket.part_size for ticket in kept} == {PART}
    assert kept[-1].upload != kept[0].upload
    assert len(kept[-1].etags) == 6
    assert sum(sent) == len(DATA) + 7


class _Killed:
    """Objects whose server is killed, and started again, just before a request."""

    def __init__(self, objects, server, kind):
        self._objects, self._server, self._kind = objects, server, kind

    def __getattr__(self, name):
        real = getattr(self._objects, name)

        def call(*given, **words):
            if name == self._kind and (name != "part" or given[2] == 2):
                self._kind = ""
                self._server.restart()
            return real(*given, **words)

        return call if callable(real) else real


@pytest.mark.parametrize("kind", ["part", "complete"])
def test_a_real_server_killed_in_mid_upload(own_s3, monkeypatch, kind):
    """rclone, killed and started again between two parts or before the end, has the whole object in the end."""
    for module in (cutting, uploading):
        monkeypatch.setattr(module, "PART", REAL)
    data = os.urandom(2 * REAL + 1000)
    url = own_s3.url(f"forgotten-{secrets.token_hex(4)}")
    remember(url, {**own_s3.options, "patience": 60})  # other parts are sent while it is away
    with wrapping(lambda objects: _Killed(objects, own_s3, kind)):
        store = open_store(url)
        image = _image(data)
        assert store.put("x.ckpt", [image], size=len(data)) == len(data)
    assert store.read("x.ckpt", 0, len(data)) == data
    assert store.leftovers() == []


def test_a_part_that_comes_wrong(s3, proxied, monkeypatch):
    """rclone refuses a part that has changed on its way, and forgets the upload: the object is there, and right."""
    for module in (cutting, uploading):
        monkeypatch.setattr(module, "PART", REAL)
    data = os.urandom(REAL + 1000)
    url = s3.url(f"spoiled-{secrets.token_hex(4)}")
    remember(url, {**s3.behind(proxied).options, "patience": 60})
    store = open_store(url)
    proxied.rule(spoil_request(9), kinds={"part"}, times=1)
    assert store.put("x.ckpt", [_image(data)], size=len(data)) == len(data)
    assert store.read("x.ckpt", 0, len(data)) == data


def test_a_copy_in_parts_is_begun_anew(monkeypatch):
    """So is a copy on the server's side, once; another error is not tried again."""
    objects, tries = object.__new__(S3Objects), []

    def once(self, target, size, words):
        tries.append(target)
        if len(tries) == 1:
            error = FileNotFoundError(target)
            error.code = "NoSuchUpload"
            raise error
        raise PermissionError(target)

    monkeypatch.setattr(S3Objects, "_copy_parts_once", once)
    with pytest.raises(PermissionError):
        objects._copy_parts("b/x", 1, {})
    assert len(tries) == 2
