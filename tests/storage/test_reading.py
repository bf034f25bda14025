"""A range of a blob comes straight into memory, from a file or by several requests at once."""

from __future__ import annotations

import os

import pytest

from holdfast.storage import open_store
from holdfast.storage.remote import reading
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.store import RemoteStore
from tests.storage.objects_in_memory import ObjectsInMemory

DATA = os.urandom(100_003)


@pytest.fixture(params=["local", "memory", "objects"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "PIECE", 1 << 12)
    if request.param == "objects":
        return RemoteStore("x://b", "b", ObjectsInMemory(PartRules()))
    return open_store(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


@pytest.mark.parametrize("start", [0, 1, 4096, 99_999, 100_003, 100_100])
@pytest.mark.parametrize("length", [0, 1, 4096, 50_000, 200_000])
def test_a_range_comes_into_memory(store, start, length):
    """Any range fills just the memory that there are bytes for, and says how many they were."""
    store.put("x", [DATA])
    memory = bytearray(length + 1)
    expected = DATA[start : start + length]
    assert store.read_into("x", start, memoryview(memory)[:length]) == len(expected)
    assert memory == expected + bytes(length + 1 - len(expected))


def test_what_is_not_there_cannot_be_read(store):
    """A blob that is not there is an error and no memory of zeros."""
    with pytest.raises(FileNotFoundError):
        store.read_into("x", 0, memoryview(bytearray(10_000)))


def test_a_large_range_is_asked_for_in_pieces():
    """What is larger than a piece is several requests, of together just the range."""
    objects = ObjectsInMemory(PartRules())
    objects.kept["b/x"] = DATA
    memory = bytearray(len(DATA))
    piece = len(DATA) // 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PIECE", piece)
        assert reading.read_into(objects, "b/x", 0, memoryview(memory)) == len(DATA)
    assert memory == DATA
    assert sorted(objects.named("get")) == [len(DATA) - 3 * piece, piece, piece, piece]


def test_an_error_of_one_request_is_that_of_the_reading():
    """A request that fails makes the whole reading fail."""
    objects = ObjectsInMemory(PartRules())
    objects.kept["b/x"] = bytes(3 * reading.PIECE)

    def fail(kind, number):
        if len(objects.calls) == 2:
            raise ConnectionError("gone")

    objects.before = fail
    with pytest.raises(ConnectionError):
        reading.read_into(objects, "b/x", 0, memoryview(bytearray(3 * reading.PIECE)))


def test_a_source_is_put_from(tmp_path):
    """A store takes a source as it takes chunks."""
    from holdfast.storage.remote.uploading import MemorySource

    store = open_store(f"memory://{tmp_path.name}")
    assert store.put_from("a/x", MemorySource(DATA)).size == len(DATA)
    assert store.read("a/x", 0, len(DATA) + 1) == DATA
