"""One name, first of a file and then of a folder with a seal, and back: whole at every instant, and one of the two."""

from __future__ import annotations

import itertools
import os
import secrets
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from holdfast.storage import open_store
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.store import RemoteStore
from holdfast.storage.standing import discard, standing
from holdfast.testing.objects import FaultyObjects, refused
from holdfast.testing.store_suite.bundles import put_bundle, read_bundle
from tests.storage.objects_in_memory import ObjectsInMemory

FILE = b"a file"
NAME = "x.ckpt"
BEGUN = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Dated(ObjectsInMemory):
    """Keys are flat, as a real object store's, and each object has the second in which it was written."""

    def __init__(self, seconds):
        super().__init__(PartRules())
        self.seconds, self.when = seconds, {}

    def put(self, key, data, **how):
        head = super().put(key, data, **how)
        self.when[key] = BEGUN + timedelta(seconds=next(self.seconds))
        return head

    def copy(self, source, target):
        super().copy(source, target)
        self.when[target] = BEGUN + timedelta(seconds=next(self.seconds))

    def list(self, prefix, *, deep=True):
        return (replace(item, modified=self.when[item.key]) for item in super().list(prefix, deep=deep))


def flat(seconds):
    return RemoteStore("flat://bucket/run", "bucket/run", Dated(seconds))


@pytest.fixture(params=["local", "flat", "same second", "memory", "s3"])
def store(request):
    if request.param == "local":
        return open_store(os.path.abspath("run"))
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_store(f"s3://bucket/{secrets.token_hex(4)}")
    if request.param == "memory":
        return open_store(f"memory://{secrets.token_hex(4)}/run")
    return flat(itertools.count() if request.param == "flat" else itertools.repeat(0))


def what(store, name=NAME):
    """What has the name by a listing, and by a look: the bytes of a file, or those of the files of a bundle."""
    (blob,) = (blob for blob in store.blobs() if blob.name == name)
    there = standing(store, name).blob
    assert (blob.name, blob.bundle) == (name, there.bundle)
    if not blob.bundle:
        return store.read(name, 0, 100)
    return read_bundle(store, name, sorted(file.name for file in standing(store, name).files))


def test_to_and_fro(store):
    """A file gives way to a bundle, and that to a file; where a server cannot have that, the old one stays whole."""
    for _ in range(1 if store.root.startswith("memory:") else 2):  # which knows the folder for ever
        store.put(NAME, [FILE])
        assert what(store) == FILE
        assert store.files(NAME) == []
        try:
            made = put_bundle(store, NAME)
        except OSError:
            assert not store.is_local
            assert what(store) == FILE
            store.remove(NAME)
            made = put_bundle(store, NAME)
            assert what(store) == made
            store.remove(NAME)
            continue
        assert what(store) == made
        store.link(NAME, "last.ckpt")
        assert what(store, "last.ckpt") == made
        store.put("one.ckpt", [FILE])
        store.link("one.ckpt", "last.ckpt")
        assert what(store, "last.ckpt") == FILE
        assert store.files("last.ckpt") == []


def test_a_name_that_is_free_again(store):
    """What is discarded is gone with what belongs to it, of either kind; what only begins like it stays."""
    store.put("x.ckpt2", [FILE])
    for put in (store.put, put_bundle):
        put(store, NAME) if put is put_bundle else put(NAME, [FILE])
        store.put(f"{NAME}.sig", [b"signed"])
        assert standing(store, NAME, [".sig", ".no"]).beside - {NAME} == {f"{NAME}.sig"}
        discard(store, NAME, [".sig"])
        assert [blob.name for blob in store.blobs()] == ["x.ckpt2"]
        assert standing(store, NAME, [".sig"]).blob is None
        discard(store, NAME, [".sig"])  # no error


@pytest.mark.parametrize("seconds", [itertools.count(), itertools.repeat(0)], ids=["seconds", "one second"])
@pytest.mark.parametrize("first", ["file", "bundle"])
def test_whichever_request_is_the_last(first, seconds):
    """Stopped before any of its requests, a change of kind has left the old one or the new one, whole."""
    ways = {"file": lambda into: into.put(NAME, [FILE]), "bundle": lambda into: put_bundle(into, NAME)}
    (second,) = ways.keys() - {first}
    for done in range(100):
        store = flat(seconds)
        ways[first](store)
        old = {NAME: store.read(NAME, 0, 99)} if first == "file" else what(store)
        dying = replace(store, objects=FaultyObjects(store.objects))
        dying.objects.rule(refused(), skip=done)
        try:
            ways[second](dying)
        except OSError:
            _old_or_new(store, old, first)
        else:
            assert isinstance(what(store), bytes) == (second == "file")
        if done >= len(dying.objects.asked):
            return
        ways[second](store)
        assert isinstance(what(store), bytes) == (second == "file")
        assert len(store.blobs()) == 1
    pytest.fail("it never ends")


def _old_or_new(store, old, first):
    """What is there is one of the two, and if it is the old one, all of it."""
    (blob,) = store.blobs()
    if blob.bundle == (first == "bundle"):
        found = read_bundle(store, NAME, old) if blob.bundle else {NAME: store.read(NAME, 0, 99)}
        assert found == old
    elif not blob.bundle:
        assert store.read(NAME, 0, 99) == FILE
