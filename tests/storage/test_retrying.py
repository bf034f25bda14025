"""What is tried again, how long, and what is said then."""

from __future__ import annotations

import logging

import pytest

from holdfast import ConfigurationError
from holdfast.storage import open_store
from holdfast.storage.remote.connect import wrapping
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.retrying import Patience, Retrying, etag_of_parts
from holdfast.testing import FaultyObjects
from holdfast.testing import objects as faults
from tests.storage.objects_in_memory import ObjectsInMemory

DATA = bytes(range(200))


@pytest.fixture
def inner():
    made = ObjectsInMemory(PartRules(least=1))
    made.put("b/x", DATA)
    return made


@pytest.fixture
def faulty(inner):
    return FaultyObjects(inner)


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def patient(faulty, pauses):
    return Retrying(faulty, Patience(60, pauses.append))


def all_of(objects):
    """Use every kind of request, and return what there is to be seen of it."""
    upload = objects.begin("b/y")
    etag = objects.part("b/y", upload, 1, DATA)
    seen = [objects.parts_of("b/y", upload)[1].size, [one.key for one in objects.uploads("b/")]]
    seen.append(objects.complete("b/y", upload, [etag]).size)
    objects.abort("b/z", objects.begin("b/z"))
    memory = bytearray(5)
    seen += [objects.put("b/w", DATA).size, objects.head("b/w").size, objects.get("b/w", 5, 9)]
    seen += [objects.get_into("b/w", 3, memoryview(memory)), bytes(memory)]
    objects.copy("b/w", "b/v")
    seen.append([one.key for one in objects.list("b/")])
    objects.remove(["b/w", "b/v"])
    return [*seen, [one.key for one in objects.list("b/")]]


@pytest.mark.parametrize("fault", [faults.refused(), faults.unanswered(), faults.refused(ConnectionResetError)])
def test_what_may_pass_is_tried_again(patient, faulty, pauses, inner, fault):
    """A server that refuses two of three requests, by a 503, a reset or silence, costs pauses and nothing else."""
    expected = all_of(Retrying(ObjectsInMemory(PartRules(least=1)), Patience(0)))
    inner.kept.clear()
    faulty.rule(fault, chance=0.66, seed=3)
    assert all_of(patient) == expected
    assert pauses
    assert all(0 <= pause <= 10 for pause in pauses)


def test_a_lost_answer_to_the_end_of_an_upload(patient, faulty, inner):
    """An upload that was completed is complete, though its answer was lost; a second end of it is an error."""
    upload = patient.begin("b/y")
    etags = [patient.part("b/y", upload, number, DATA) for number in (1, 2)]
    faulty.rule(faults.lost(), kinds={"complete"}, times=1)
    head = patient.complete("b/y", upload, etags)
    assert (head.size, head.etag) == (400, etag_of_parts(etags))
    assert inner.kept["b/y"] == DATA + DATA
    with pytest.raises(FileNotFoundError):
        patient.complete("b/y", upload, etags)


@pytest.mark.parametrize("error", [PermissionError, FileExistsError, FileNotFoundError])
def test_what_cannot_pass_is_told_at_once(patient, faulty, pauses, error):
    """A refusal, a condition that does not hold and what is not there are one try."""
    rule = faulty.rule(faults.refused(lambda: error("no")))
    with pytest.raises(error):
        patient.put("b/x", b"new", absent=True)
    assert (rule.hits, pauses) == (1, [])


def test_patience_ends(faulty):
    """At the end of its patience it raises an error of the last one's kind, which says how often it was tried."""
    faulty.rule(faults.unanswered())
    with pytest.raises(TimeoutError, match=r"the last of \d+ tries to put b/x, within \d+ s"):
        Retrying(faulty, Patience(0.4)).put("b/x", DATA)


def test_no_patience(faulty):
    """Without patience there is one try, and its error as it is."""
    rule = faulty.rule(faults.refused())
    with pytest.raises(ConnectionError, match=r"SlowDown: reduce your request rate$"):
        Retrying(faulty, Patience(0)).head("b/x")
    assert rule.hits == 1


def test_a_stream_is_sent_once(patient, faulty, inner):
    """What comes as a stream cannot be sent again: half of it would be missing."""
    rule = faulty.rule(faults.refused(), kinds={"put"})
    with pytest.raises(ConnectionError):
        patient.put("b/x", iter([DATA]))
    assert (rule.hits, inner.kept["b/x"]) == (1, DATA)


def test_a_listing_that_fails_midway_is_none(patient, faulty, inner):
    """A listing that breaks after some keys is made anew: nothing is missing in it, and nothing there twice."""
    for name in "abc":
        inner.put(f"b/{name}", DATA)
    faulty.rule(faults.cut_listing(2), times=1)
    assert [one.key for one in patient.list("b/")] == ["b/a", "b/b", "b/c", "b/x"]


def test_a_long_outage_is_told_once(faulty, caplog, monkeypatch):
    """After ten seconds of failing a warning says so, once, and another one that the server answers again."""
    now = [0.0]
    monkeypatch.setattr("holdfast.storage.remote.retrying.time.monotonic", lambda: now[0])
    patient = Retrying(faulty, Patience(1000, lambda _: now.__setitem__(0, now[0] + 4)))
    faulty.rule(faults.refused(), times=8)
    with caplog.at_level(logging.WARNING, "holdfast"):
        patient.head("b/x")
        patient.head("b/x")
    assert ["does not answer as it should for 12 s" in caplog.messages[0], caplog.messages[1:]] == [
        True,
        ["the server answers again"],
    ]


def test_the_option_and_the_environment(monkeypatch, s3):
    """``patience`` of the storage options, then the environment, say how long; wrong numbers are told."""
    assert Patience.said(7).seconds == 7
    monkeypatch.setenv("HOLDFAST_PATIENCE", "3.5")
    assert Patience.said(None).seconds == 3.5
    monkeypatch.delenv("HOLDFAST_PATIENCE")
    assert Patience.said(None) == Patience()
    monkeypatch.setenv("HOLDFAST_PATIENCE", "long")
    with pytest.raises(ConfigurationError, match=r"HOLDFAST_PATIENCE is a number of seconds.*'long'"):
        Patience.said(None)


def test_a_storm_before_the_real_server(monkeypatch, s3):
    """Every second request refused, a save of several parts arrives whole and is read back the same."""
    monkeypatch.setenv("HOLDFAST_PATIENCE", "30")
    made = []

    def wrap(objects):
        spoilt = FaultyObjects(objects)
        made.append(spoilt.rule(faults.refused(), chance=0.5, seed=1))
        return spoilt

    with wrapping(wrap):
        store = open_store(s3.url("storm"))
        data = bytes(range(256)) * (80 << 10)
        assert store.put("x.ckpt", [data]) == len(data)
        assert store.read("x.ckpt", 0, len(data)) == data
        assert [blob.name for blob in store.blobs()] == ["x.ckpt"]
    assert sum(rule.hits for rule in made) > 2
