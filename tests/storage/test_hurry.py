"""Nobody is held up by a server that does not answer, once nobody waits for it: tries, requests and claims end."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from holdfast.storage import end_waiting, hurry, wait_again
from holdfast.storage.options import remember
from holdfast.storage.remote import looped, sockets
from holdfast.storage.remote.bodies import MemorySource
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.reading import PIECE, read_into
from holdfast.storage.remote.retrying import Patience, Retrying
from holdfast.storage.remote.uploading import PART, Ticket, upload
from holdfast.testing import FaultyObjects
from holdfast.testing import objects as faults
from tests.storage.objects_in_memory import ObjectsInMemory

LONG = Patience(3600)  # a test that waited for its end would be ended for taking too long


@pytest.fixture
def inner():
    return ObjectsInMemory(PartRules(least=1))


@pytest.fixture
def faulty(inner):
    return FaultyObjects(inner)


@pytest.fixture(autouse=True)
def _patient_afterwards():
    yield
    wait_again()


def after_a_failure(rule, act):
    """Act once a rule has been met, from another thread."""

    def wait():
        while not rule.hits:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_an_event_ends_the_tries(faulty):
    """A request that is being tried again is given up when its thread's event is set; the error has the last one."""
    event = threading.Event()
    rule = faulty.rule(faults.refused())
    after_a_failure(rule, event.set)
    with hurry.until(event), pytest.raises(InterruptedError, match=r"SlowDown.*not tried again") as caught:
        Retrying(faulty, LONG).put("b/x", b"x")
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert hurry.heeded() == ()


def test_the_end_of_all_waiting(faulty, inner):
    """After ``end_waiting`` all tries of the process end, on any thread; after ``wait_again`` they do not."""
    rule = faulty.rule(faults.refused())
    after_a_failure(rule, end_waiting)
    with pytest.raises(InterruptedError):
        Retrying(faulty, LONG).put("b/x", b"x")
    wait_again()
    rule.times = rule.hits + 1
    Retrying(faulty, LONG).put("b/x", b"x")
    assert inner.kept == {"b/x": b"x"}


def test_an_upload_that_is_stopped_is_kept(faulty, inner):
    """An upload whose parts are refused ends when it is stopped, however patient it is, and can be gone on with."""
    stop, notes = threading.Event(), []
    rule = faulty.rule(faults.refused(), kinds={"part"}, skip=1)
    after_a_failure(rule, stop.set)
    data = bytes(3 * PART)
    with hurry.until(stop), pytest.raises(InterruptedError):
        upload(Retrying(faulty, LONG), "b/x", MemorySource(data), keep=notes.append, workers=1)
    rule.times = 0
    head = upload(Retrying(faulty, LONG), "b/x", MemorySource(data), ticket=Ticket(**vars(notes[-1])))
    assert (head.size, len(inner.named("part"))) == (len(data), 3)


def test_a_part_that_fails_for_good_ends_the_others_tries(faulty):
    """Of an upload of which one part is refused for good, the parts that are tried again are not waited for."""
    rule = faulty.rule(faults.refused(), kinds={"part"}, times=1)
    faulty.rule(faults.refused(lambda: PermissionError("no")), kinds={"part"}, times=1)
    faulty.rule(faults.refused(), kinds={"part"})
    with pytest.raises(PermissionError, match="no"):
        upload(Retrying(faulty, LONG), "b/x", MemorySource(bytes(4 * PART)), workers=3)
    assert rule.hits == 1


def test_a_range_that_fails_for_good_ends_the_others_tries(faulty, inner):
    """Of many requests of a read one of which is refused for good, that is raised, and no other is waited for."""
    inner.put("b/x", bytes(3 * PIECE))
    faulty.rule(faults.refused(), kinds={"get_into"}, times=1)
    faulty.rule(faults.refused(lambda: PermissionError("no")), kinds={"get_into"}, times=1)
    faulty.rule(faults.refused(), kinds={"get_into"})
    with pytest.raises(PermissionError, match="no"):
        read_into(Retrying(faulty, LONG), "b/x", 0, memoryview(bytearray(3 * PIECE)))


def test_a_request_without_an_answer_is_left(s3):
    """A request that the server never answers is given up soon after the end of all waiting, and says so."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = "s3://bucket/silent"
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        remember(url, {"key": "someaccesskey", "secret": "x" * 20, "client_kwargs": {"endpoint_url": endpoint}})
        try:
            objects, key = connect(url)
            threading.Timer(0.1, end_waiting).start()
            with pytest.raises(InterruptedError, match="given up without an answer"):
                objects.head(f"{key}/x")
        finally:
            remember(url, {})


@pytest.mark.parametrize("act", ["put", "get"])
def test_bytes_that_a_silent_server_holds_up_are_left(s3, monkeypatch, act):
    """A request whose bytes go by a blocking socket is given up as well, once nobody waits: its line is cut."""
    monkeypatch.setattr(sockets, "_LEAST", 10)
    monkeypatch.setattr(looped, "_GRACE", 0.1)
    over, lines, url = threading.Event(), [], "s3://bucket/silent-bytes"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = {"client_kwargs": {"endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}}
        limits = {"config_kwargs": {"read_timeout": 3600}}
        remember(url, {"key": "someaccesskey", "secret": "x" * 20, **endpoint, **limits})
        try:
            objects, key = connect(url)
            threading.Thread(target=lambda: (lines.append(silent.accept()), over.set()), daemon=True).start()
            with hurry.until(over), pytest.raises(InterruptedError, match="given up without"):
                objects.put(f"{key}/x", bytes(50)) if act == "put" else objects.get(f"{key}/x", 0, 50)
        finally:
            remember(url, {})
            for line, _ in lines:
                line.close()
