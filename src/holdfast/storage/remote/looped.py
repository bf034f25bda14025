"""Work on an event loop that another thread runs, as fsspec's clients have one, for a caller who waits for it.

While it waits the caller makes the blocking calls that the work asks it for: with as many callers as there are parts
under way, their bytes pass side by side, and not one after the other through the loop's one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable, Collection, Coroutine
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

from holdfast.storage import hurry
from holdfast.storage.remote.failures import cause_of, translated

_T = TypeVar("_T")
_AT_ONCE = 16  # requests under way, of removals
_GRACE = 2.0  # seconds for an answer that nobody waits for any longer: a server that is well needs no more
_Calls = queue.SimpleQueue["Callable[[], None] | None"]
_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


class _Caller(NamedTuple):
    """One who waits: the calls that it is to make, and when nobody waits for it any longer."""

    calls: _Calls
    heeded: tuple[threading.Event, ...]

    @property
    def is_hurried(self) -> bool:
        with hurry.until(*self.heeded):
            return hurry.is_hurried()


def run_on(
    loop: Any,
    work: Callable[[], Coroutine[Any, Any, Any]],
    what: str,
    errors: Callable[[BaseException, str], OSError] = translated,
) -> Any:
    """Run it there and return what it returns; an interrupt of the caller ends it there, too.

    Raises:
        InterruptedError: if nobody waits for it any longer, see ``hurry``. Whether it was done is then not known.
        OSError: what ``errors`` makes of whatever it raised, with ``what`` was tried.

    """
    calls: _Calls = queue.SimpleQueue()
    token = _caller.set(_Caller(calls, hurry.heeded()))  # the work's task takes this thread's variables along
    try:
        future = asyncio.run_coroutine_threadsafe(_caught(work), loop)
    finally:
        _caller.reset(token)
    future.add_done_callback(lambda _: calls.put(None))
    hurried = 0.0
    try:
        while not future.done():
            with contextlib.suppress(queue.Empty):
                if (call := calls.get(timeout=hurry.SLICE)) is not None:
                    call()
            loop.call_soon_threadsafe(int)  # an error if it has ended
            now = time.monotonic()
            hurried = (hurried or now) if hurry.is_hurried() else 0.0
            if hurried and now - hurried >= _GRACE and not future.done():
                raise InterruptedError(errno.EINTR, f"{what}: given up without an answer, as nobody waits for it")
        result, error = future.result()
    finally:
        future.cancel()
    if error is not None:
        known = errors(error, what)
        raise known from cause_of(known, error)
    return result


def has_caller() -> bool:
    """Tell whether a thread waits for the work that asks, and can be asked to make a call."""
    return _caller.get() is not None


def remove_each(
    run: Callable[[str, Callable[[], Coroutine[Any, Any, Any]]], Any],
    keys: Collection[str],
    one: Callable[[str], Coroutine[Any, Any, None]],
) -> None:
    """Remove objects by a request for each, some at a time: all are tried, then the first error is raised.

    Args:
        run: runs work on the loop, with what it is for errors.
        keys: of the objects.
        one: removes one.

    """

    async def limited(key: str, together: asyncio.Semaphore) -> None:
        async with together:
            await one(key)

    async def everything() -> None:
        together = asyncio.Semaphore(_AT_ONCE)
        done = await asyncio.gather(*(limited(key, together) for key in keys), return_exceptions=True)
        for error in done:
            if error is not None:
                raise error

    if keys:
        run(f"remove {next(iter(keys))} and {len(keys) - 1} more", everything)


async def by_caller(call: Callable[[], _T], cut: Callable[[], None] | None = None) -> _T:
    """Have the thread that waits for this work make a blocking call, and return what it returned, or raise it.

    Where nobody waits for that any longer, ``cut``, called from another thread, ends it after a moment.
    """
    caller, loop = _caller.get(), asyncio.get_running_loop()
    if caller is None:
        raise RuntimeError("nobody waits for this work")
    answer: asyncio.Future[_T] = loop.create_future()

    def make() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - raised where the call was asked for
            loop.call_soon_threadsafe(_settle, answer, None, error)
        else:
            loop.call_soon_threadsafe(_settle, answer, result, None)

    caller.calls.put(make)
    if cut is not None:
        await _watched(answer, caller, cut)
    return await answer


async def _watched(answer: asyncio.Future[Any], caller: _Caller, cut: Callable[[], None]) -> None:
    """Wait for a call; if nobody waits for it any longer, end it after a moment."""
    hurried = 0.0
    while not answer.done():
        await asyncio.wait([answer], timeout=hurry.SLICE)
        now = time.monotonic()
        hurried = (hurried or now) if caller.is_hurried else 0.0
        if hurried and now - hurried >= _GRACE and not answer.done():
            cut()  # again and again: a line may be made just now


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():  # nobody waits any more
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


async def _caught(work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, Exception | None]:
    """Return what it returns, and what it raises: a future would make another time-out of one, without its cause."""
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001 - raised by the one who waits
        return None, error
