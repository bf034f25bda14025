"""The wrappers of ``Objects``: what they count is what was asked, what they fail is what the rules say."""

from __future__ import annotations

import pytest

from holdfast.storage.remote.objects import PartRules
from holdfast.testing import CountingObjects, FaultyObjects
from holdfast.testing import objects as faults
from tests.storage.objects_in_memory import ObjectsInMemory

DATA = bytes(range(200))


@pytest.fixture
def inner():
    made = ObjectsInMemory(PartRules(least=1))
    made.put("b/x", DATA)
    return made


def everything(objects):
    """Ask once for each kind of request."""
    upload = objects.begin("b/y")
    etag = objects.part("b/y", upload, 1, DATA)
    assert objects.parts_of("b/y", upload)[1].size == 200
    assert upload in [found.id for found in objects.uploads("b/")]
    objects.complete("b/y", upload, [etag])
    objects.abort("b/z", "none")
    objects.put("b/x", DATA)
    objects.copy("b/x", "b/z")
    assert objects.head("b/z").size == 200
    assert objects.get("b/y", 5, 9) == DATA[5:9]
    memory = memoryview(bytearray(10))
    assert (objects.get_into("b/y", 195, memory), bytes(memory[:5])) == (5, DATA[195:])
    assert [found.key for found in objects.list("b/")] == ["b/x", "b/y", "b/z"]
    objects.remove(["b/y", "b/z"])


KINDS = ["begin", "part", "parts_of", "uploads", "complete", "abort", "put", "copy", "head", "get", "get_into", "list"]


def test_what_is_counted(inner):
    """Each request is counted once, in order, with the bytes of objects that went and came; empty ranges are none."""
    counting = CountingObjects(inner)
    everything(counting)
    assert [call.kind for call in counting.calls] == [*KINDS, "remove"]
    assert (counting.sent, counting.received) == (400, 9)
    assert (counting.client, counting.parts) == (inner.client, inner.parts)
    counting.clear()
    assert counting.get("b/x", 5, 5) == b""
    assert counting.counts == {}


def test_pages_of_a_listing_are_counted(inner):
    """A listing is a request a thousand keys."""
    for number in range(2000):
        inner.put(f"many/{number}", b"")
    counting = CountingObjects(inner)
    assert sum(1 for _ in counting.list("many/")) == 2000
    assert sum(1 for _ in counting.list("b/")) == 1
    assert counting.counts == {"list": 3}


@pytest.mark.parametrize("kind", [*KINDS, "remove"])
def test_a_rule_takes_the_requests_it_names(inner, kind):
    """A fault of one kind meets that kind alone, and all others go through."""
    faulty = FaultyObjects(inner)
    rule = faulty.rule(faults.refused(), kinds={kind}, times=1)
    with pytest.raises(ConnectionError, match="SlowDown"):
        everything(faulty)
    assert (faulty.asked[-1].kind, rule.hits) == (kind, 1)
    everything(faulty)
    faulty.rule(faults.expired(), key="^b/x$", skip=1)
    faulty.head("b/x")
    with pytest.raises(PermissionError, match="expired"):
        faulty.head("b/x")
    faulty.no_rules()
    faulty.head("b/x")


def test_a_lost_answer_was_done(inner):
    """What is lost is the answer alone; what was not answered or refused was not done."""
    faulty = FaultyObjects(inner)
    for fault, error in ((faults.lost(), ConnectionResetError), (faults.unanswered(), TimeoutError)):
        faulty.no_rules()
        faulty.rule(fault, kinds={"put"})
        with pytest.raises(error):
            faulty.put(f"b/{error.__name__}", b"new")
    assert sorted(inner.kept) == ["b/ConnectionResetError", "b/x"]


def test_reads_that_are_wrong(inner):
    """A short read has its first bytes and no error; a flipped one has one bit wrong, in what is returned or filled."""
    faulty = FaultyObjects(inner)
    memory = memoryview(bytearray(4))
    faulty.rule(faults.short(3), times=2)
    assert faulty.get("b/x", 0, 10) == DATA[:3]
    assert faulty.get_into("b/x", 0, memory) == 3
    faulty.rule(faults.flipped(1), times=2)
    assert faulty.get("b/x", 0, 4) == bytes([0, 0x11, 2, 3])
    assert (faulty.get_into("b/x", 0, memory), bytes(memory)) == (4, bytes([0, 0x11, 2, 3]))
    assert inner.kept["b/x"] == DATA


def test_listings_that_are_wrong(inner):
    """A stale listing lacks what it was told to; one that is cut fails after so many objects."""
    inner.put("b/y", b"")
    faulty = FaultyObjects(inner)
    faulty.rule(faults.stale("x"), times=1)
    assert [found.key for found in faulty.list("b/")] == ["b/y"]
    faulty.rule(faults.cut_listing(1))
    listing = faulty.list("b/")
    assert next(listing).key == "b/x"
    with pytest.raises(ConnectionResetError):
        next(listing)
