"""An object is sent whole or not at all, from where its bytes lie, and a try that ended is gone on with."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote import uploading
from holdfast.storage.remote.objects import PartRules
from holdfast.storage.remote.parts import Sizes, cut
from holdfast.storage.remote.uploading import FileBytes, MemorySource, Pace, Ticket, upload, upload_chunks
from tests.storage.objects_in_memory import ObjectsInMemory

PART = 1 << 20
DATA = os.urandom(5 * PART + 12345)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(cutting, "PART", PART)
    monkeypatch.setattr(uploading, "PART", PART)


@pytest.fixture
def objects():
    return ObjectsInMemory(PartRules(least=1))


def _image(data=DATA):
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def test_blocks_of_an_image_are_sent_from_where_they_lie(objects):
    """Chunks that lie side by side make parts that are the memory itself; only the end, which lies apart, is copied."""
    image = memoryview(_image())
    sent = []
    original = objects.part
    objects.part = lambda *given: sent.append(given[-1]) or original(*given)
    half = PART // 2
    chunks = [image[at : at + half] for at in range(0, len(image), half)] + [b"the end"]
    head = upload_chunks(objects, "b/x", chunks, workers=1)
    assert objects.kept["b/x"] == DATA + b"the end"
    assert head.size == len(DATA) + 7
    assert [len(data) for data in sent] == [PART] * 5 + [12345 + 7]
    assert all(data.obj is image.obj for data in sent[:-1])
    assert isinstance(sent[-1], bytes)


@pytest.mark.parametrize("count", [0, 1, PART - 1, PART])
def test_a_small_object_is_one_request(objects, count):
    """What fits into one part is put by one request, whatever its chunks are."""
    data = DATA[:count]
    upload_chunks(objects, "b/x", [data[:3], b"", memoryview(data)[3:]])
    upload(objects, "b/y", MemorySource(data))
    assert objects.calls == [("put", count)] * 2
    assert objects.kept == {"b/x": data, "b/y": data}


def test_parts_are_equal_where_they_can_be_and_reach_the_largest_object(monkeypatch):
    """A known size makes equal parts of at most 10,000; an unknown one grows to more than 5 TiB within them."""
    monkeypatch.undo()
    rules = PartRules()
    for size in (1, 1 << 30, 100 << 30, 5 << 40):
        sizes = Sizes.of(rules, size)
        count = -(-size // sizes[1])
        assert count <= rules.count
        assert sizes[count] == sizes[1]
        assert sizes[1] % (1 << 20) == 0
    for sizes in (Sizes.of(rules), Sizes.of(rules, 1 << 30)):
        assert sum(sizes[number] for number in range(1, rules.count + 1)) > 5 << 40
        assert max(sizes[number] for number in range(1, rules.count + 1)) <= rules.most
        assert sizes[1200] == sizes[1]


def test_the_end_of_the_chunks_is_the_last_part():
    """Cutting neither loses nor adds a byte, and says which part is the last one."""
    found = list(cut([DATA[:100], memoryview(DATA)[100:250], DATA[250:256]], Sizes(64)))
    assert b"".join(data for data, _ in found) == DATA[:256]
    assert [len(data) for data, _ in found] == [64] * 4
    assert [last for _, last in found] == [False] * 3 + [True]


@pytest.mark.parametrize("where", ["part", "complete", "chunks", "gate"])
@pytest.mark.parametrize("error", [ConnectionError("gone"), KeyboardInterrupt()])
def test_whatever_fails_the_upload_is_aborted(objects, where, error):
    """A part, the last step, the chunks or the gate: the error comes out, and nothing is left, object or upload."""

    def fail(kind, number):
        if kind == where and number in (0, 3):
            raise error

    def chunks():
        yield DATA[: 2 * PART]
        if where == "chunks":
            raise error
        yield DATA[2 * PART :]

    objects.before = fail
    with pytest.raises(type(error)) as caught:
        upload_chunks(objects, "b/x", chunks(), gate=lambda: fail("gate", 0))
    assert caught.value is error
    assert (objects.kept, objects.underway) == ({}, {})
    assert objects.named("abort")


def test_the_first_error_stops_the_rest(objects):
    """After a part has failed none of those that wait is sent, and later errors do not hide it."""
    barrier = threading.Barrier(2)

    def fail(kind, number):
        if number in (1, 2):
            barrier.wait()
            if number == 2:
                failed.wait()
            failed.set()
            raise ConnectionError("part", number)

    failed = threading.Event()
    objects.before = fail
    with pytest.raises(ConnectionError, match="1"):
        upload_chunks(objects, "b/x", [DATA], workers=2)
    assert len(objects.named("part")) == 2


def test_the_gate_is_asked_when_all_is_there_and_nothing_is_made(objects):
    """The gate opens between the last part and the step that makes the object."""
    seen = []
    gate = lambda: seen.append((sum(objects.named("part")), dict(objects.kept)))  # noqa: E731 - short
    upload_chunks(objects, "b/x", [DATA], gate=gate)
    upload(objects, "b/y", MemorySource(DATA), gate=lambda: seen.append("b/y" in objects.kept))
    assert seen == [(len(DATA), {}), False]


def test_parts_under_way_are_bounded(objects):
    """A source is asked for a part only when a worker is free: no more parts than workers are in memory."""
    held, most, lock = 0, 0, threading.Lock()

    class Watched(MemorySource):
        def view(self, offset, length):
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            return super().view(offset, length)

    def sent(kind, number):
        nonlocal held
        with lock:
            held -= kind == "part"

    objects.before = sent
    upload(objects, "b/x", Watched(DATA), workers=3)
    assert 1 <= most <= 3
    assert objects.kept["b/x"] == DATA


def _interrupted(objects, source, after=3):
    """Begin an upload and end it after some parts; return the last ticket."""
    stop, tickets = threading.Event(), []

    def keep(ticket):
        tickets.append(ticket)
        if len(ticket.etags) >= after:
            stop.set()

    with pytest.raises(InterruptedError):
        upload(objects, "b/x", source, keep=keep, stop=stop, workers=1)
    assert "b/x" not in objects.kept
    return tickets[-1]


def test_a_ticket_goes_on_with_the_parts_that_are_there(objects, tmp_path):
    """A second try, in another process by its ticket, sends only what is missing, and counts all that is there."""
    (tmp_path / "x").write_bytes(DATA)
    with open(tmp_path / "x", "rb") as file, FileBytes(file.fileno()) as source:
        ticket = _interrupted(objects, source)
        objects.calls.clear()
        told = []
        upload(objects, "b/x", source, ticket=ticket, progress=told.append)
    assert objects.kept["b/x"] == DATA
    assert sum(objects.named("part")) == len(DATA) - 3 * PART
    assert (told[0], sum(told)) == (3 * PART, len(DATA))
    assert not objects.named("begin")


def test_a_part_that_nobody_took_note_of_is_recognized_by_its_content(objects):
    """A part that arrived just before its sender died is taken if it is the same bytes, and sent anew if not."""
    ticket = _interrupted(objects, MemorySource(DATA))
    bodies = objects.underway[ticket.upload][1]
    bodies[4], bodies[5] = DATA[3 * PART : 4 * PART], bytes(PART)
    objects.calls.clear()
    upload(objects, "b/x", MemorySource(DATA), ticket=ticket)
    assert objects.kept["b/x"] == DATA
    assert sorted(objects.named("part")) == [12345, PART]


def test_a_part_that_is_not_what_was_noted_is_sent_again(objects):
    """What the ticket says of a part counts only as far as the server says the same."""
    ticket = _interrupted(objects, MemorySource(DATA))
    objects.underway[ticket.upload][1][2] = bytes(PART)
    objects.calls.clear()
    upload(objects, "b/x", MemorySource(DATA), ticket=ticket)
    assert objects.kept["b/x"] == DATA
    assert sum(objects.named("part")) == len(DATA) - 2 * PART


def test_a_ticket_that_the_server_does_not_know_begins_anew(objects):
    """An upload that was aborted by somebody else is no error."""
    kept = []
    upload(objects, "b/x", MemorySource(DATA), ticket=Ticket("gone", PART, {1: "x"}), keep=kept.append)
    assert objects.kept["b/x"] == DATA
    assert kept[0].etags == {}
    assert kept[0].upload != "gone"
    assert sorted(kept[-1].etags) == [1, 2, 3, 4, 5, 6]


def test_a_kept_upload_is_left_where_it_failed(objects):
    """With somebody who keeps the ticket, an error leaves the parts for the next try."""

    def fail(kind, number):
        if number == 4:
            raise ConnectionError("gone")

    objects.before = fail
    with pytest.raises(ConnectionError):
        upload(objects, "b/x", MemorySource(DATA), keep=lambda _: None, workers=1)
    assert not objects.named("abort")
    assert [sorted(bodies) for _, bodies in objects.underway.values()] == [[1, 2, 3]]


def test_a_file_that_was_cut_is_an_error(objects, tmp_path):
    """A file that becomes shorter while it is sent never becomes an object."""
    path = tmp_path / "x"
    path.write_bytes(DATA)
    with open(path, "rb") as file, FileBytes(file.fileno()) as source:
        os.truncate(path, 2 * PART)
        with pytest.raises(OSError, match="the file ended after"):
            upload(objects, "b/x", source)
    assert (objects.kept, objects.underway) == ({}, {})


def test_without_parts_the_bytes_go_as_a_stream(tmp_path):
    """A store that takes no parts gets the pieces one by one, the gate behind the last; an error makes no object."""
    objects, seen = ObjectsInMemory(None), []
    upload_chunks(objects, "b/x", [DATA[:7], DATA[7:]], gate=lambda: seen.append("b/x" in objects.kept))
    (tmp_path / "y").write_bytes(DATA)
    with open(tmp_path / "y", "rb") as file, FileBytes(file.fileno()) as source:
        upload(objects, "b/y", source, gate=lambda: seen.append("b/y" in objects.kept), progress=seen.append)
    assert objects.kept == {"b/x": DATA, "b/y": DATA}
    assert seen == [False, *[PART] * 5, 12345, False]


def test_a_server_that_has_less_than_was_sent_is_an_error(objects):
    """An object that is not as long as what was sent is told, small or large."""
    original = objects.complete
    objects.complete = lambda *given, **how: original(*given, **how).__class__(5)
    with pytest.raises(OSError, match=f"sent {len(DATA)} bytes but b/x has 5"):
        upload_chunks(objects, "b/x", [DATA])


def test_absent_never_replaces(objects):
    """The condition reaches the step that makes the object, for small and large ones."""
    for data in (DATA, DATA[:5]):
        for send, body in ((upload, MemorySource(data)), (upload_chunks, [data])):
            objects.kept["b/x"] = b"another's"
            with pytest.raises(FileExistsError):
                send(objects, "b/x", body, absent=True)
            assert (objects.kept["b/x"], objects.underway) == (b"another's", {})


def test_a_pace_is_kept_by_all_who_share_it(objects):
    """What several uploads send takes as long as the rate says, by a clock that only the waiting moves."""
    clock = 0.0

    def sleep(seconds):
        nonlocal clock
        clock += seconds

    pace = Pace(PART, now=lambda: clock, sleep=sleep)
    upload(objects, "b/x", MemorySource(DATA), pace=pace, workers=1)
    upload(objects, "b/y", MemorySource(DATA[:PART]), pace=pace)
    assert clock == pytest.approx(len(DATA) / PART + 1)
    assert Pace(None).spend(1 << 40) is None
    with pytest.raises(ValueError, match="0 bytes per second"):
        Pace(0)


def test_an_upload_that_waits_for_its_turn_can_be_stopped(objects):
    """A slow pace does not keep a stop waiting."""
    stop = threading.Event()
    pace = Pace(1, sleep=lambda _: stop.set())
    with pytest.raises(InterruptedError):
        upload(objects, "b/x", MemorySource(DATA[:9]), pace=pace, stop=stop)
    assert objects.kept == {}
