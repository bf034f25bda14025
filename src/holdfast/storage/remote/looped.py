"""Work on an event loop that another thread runs, as fsspec's clients have one, for a caller who waits for it.

While it waits the caller makes the blocking calls that the work asks it for: with as many callers as there are parts
under way, their bytes pass side by side, and not one after the other through the loop's one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import queue
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

from holdfast.storage import hurry
from holdfast.storage.remote.failures import cause_of, translated

_T = TypeVar("_T")
_GRACE = 2.0  # seconds for an answer that nobody waits for any longer: a server that is well needs no more
_Calls = queue.SimpleQueue["Callable[[], None] | None"]
_caller: ContextVar[_Calls | None] = ContextVar("caller", default=None)


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
    token = _caller.set(calls)  # the work's task takes this thread's variables along
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


async def by_caller(call: Callable[[], _T]) -> _T:
    """Have the thread that waits for this work make a blocking call, and return what it returned, or raise it."""
    calls, loop = _caller.get(), asyncio.get_running_loop()
    if calls is None:
        raise RuntimeError("nobody waits for this work")
    answer: asyncio.Future[_T] = loop.create_future()

    def make() -> None:
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - raised where the call was asked for
            loop.call_soon_threadsafe(_settle, answer, None, error)
        else:
            loop.call_soon_threadsafe(_settle, answer, result, None)

    calls.put(make)
    return await answer


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
