"""Bytes of parts and ranges through blocking sockets, against a real S3 server."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.storage.options import remember
from holdfast.storage.remote import sockets
from holdfast.storage.remote.connect import connect
from holdfast.storage.remote.failures import translated
from holdfast.storage.remote.looped import by_caller, has_caller, run_on
from holdfast.storage.remote.retrying import worth_another_try

DATA = os.urandom(300_007)


@pytest.fixture
def url(s3):
    found = s3.url(f"sockets-{secrets.token_hex(4)}")
    yield found
    remember(found, {})


@pytest.fixture
def exchanges(monkeypatch):
    """The method and the thread of each request whose bytes went through a socket of ours."""
    found, exchange = [], sockets._exchange

    def counted(session, request, *rest):
        found.append((request.method, threading.current_thread()))
        return exchange(session, request, *rest)

    monkeypatch.setattr(sockets, "_exchange", counted)
    monkeypatch.setattr(sockets, "_LEAST", 10)
    return found


@pytest.fixture
def loop():
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.mark.parametrize("client", ["auto", "fsspec"])
def test_bytes_go_through_sockets_of_the_one_who_waits_unless_told_otherwise(url, exchanges, client):
    """Puts and ranges carry the right bytes, by the calling thread and no other; the option leaves it to aiohttp."""
    remember(url, {"client": client})
    objects, key = connect(url)
    objects.put(f"{key}/x", memoryview(DATA))
    memory = bytearray(len(DATA))
    for start, length in ((0, len(DATA)), (7, 100_000), (300_000, 50)):
        view = memoryview(memory)[:length]
        assert objects.get_into(f"{key}/x", start, view) == min(length, len(DATA) - start)
        assert memory[: len(DATA) - start][:length] == DATA[start : start + length]
    upload = objects.begin(f"{key}/y")
    objects.complete(f"{key}/y", upload, [objects.part(f"{key}/y", upload, 1, DATA)])
    assert objects.get(f"{key}/y", 0, 1 << 20) == DATA
    expected = [] if client == "fsspec" else ["PUT", "GET", "GET", "GET", "PUT", "GET"]
    assert [method for method, _ in exchanges] == expected
    assert {thread for _, thread in exchanges} <= {threading.current_thread()}


def test_the_environment_chooses_as_the_option_does(url, exchanges, monkeypatch):
    """``HOLDFAST_CLIENT=fsspec`` leaves the bytes to aiohttp, too."""
    monkeypatch.setenv("HOLDFAST_CLIENT", "fsspec")
    objects, key = connect(url)
    objects.put(f"{key}/x", DATA)
    assert objects.get(f"{key}/x", 1, 5) == DATA[1:5]
    assert exchanges == []


def test_few_bytes_go_by_the_loop(url, exchanges):
    """What is small takes the shorter way, and is as right."""
    objects, key = connect(url)
    objects.put(f"{key}/x", DATA[:9])
    assert objects.get(f"{key}/x", 1, 5) == DATA[1:5]
    assert objects.get(f"{key}/x", 0, 10) == DATA[:9]
    assert [method for method, _ in exchanges] == ["GET"]


def test_a_line_that_answered_is_used_again_after_refusals_and_ends(url, exchanges):
    """What is not there, and what begins behind the end, is told as ever, and the next request gets its own answer."""
    remember(url, {"patience": 0})
    objects, key = connect(url)
    objects.put(f"{key}/x", DATA)
    view = memoryview(bytearray(10))
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            objects.get_into(f"{key}/none", 0, view)
        assert objects.get_into(f"{key}/x", 400_000, view) == 0
        assert objects.get_into(f"{key}/x", 100, view) == 10
        assert view == DATA[100:110]
    assert len(exchanges) == 10


def test_a_session_of_the_users_own_is_left_alone():
    """A configuration that names its session or its connector keeps it."""
    assert set(sockets.session_words({})) == {"http_session_cls"}
    assert sockets.session_words({"http_session_cls": object}) == {}
    assert sockets.session_words({"connector_args": {"limit": 3}}) == {}


def test_work_on_a_loop_has_its_caller_make_calls(loop):
    """The one who waits makes the calls, in their order; what one raises is raised where it was asked for."""

    async def work():
        assert has_caller()
        threads = [await by_caller(threading.current_thread) for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            await by_caller(lambda: 1 / 0)
        return threads

    assert run_on(loop, work, "work") == [threading.current_thread()] * 3


def test_an_interrupt_of_a_call_ends_the_work(loop):
    """An interrupt in a call that the caller makes comes out at once, and the work on the loop is cancelled."""
    ended = threading.Event()

    def interrupted():
        raise KeyboardInterrupt

    async def work():
        try:
            await by_caller(interrupted)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        run_on(loop, work, "work")
    assert ended.wait(10)


def test_work_that_nobody_waits_for_has_no_caller(loop):
    """A task that was not begun by one who waits is not served, and does not wait for ever."""

    async def work():
        assert not has_caller()
        with pytest.raises(RuntimeError, match="nobody waits"):
            await by_caller(int)
        return True

    assert asyncio.run_coroutine_threadsafe(work(), loop).result(10)


def test_an_interpreter_that_ends_is_not_waited_for():
    """What fails because this process is about to end is told at once: no further try could help."""
    from botocore.exceptions import HTTPClientError

    pool = ThreadPoolExecutor()
    pool.shutdown()
    with pytest.raises(RuntimeError) as ended:
        pool.submit(int)
    assert not worth_another_try(translated(HTTPClientError(error=ended.value), "put x"))
    assert worth_another_try(translated(HTTPClientError(error=ConnectionResetError("cut")), "put x"))
