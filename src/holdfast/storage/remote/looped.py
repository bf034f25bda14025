"""Work on an event loop that another thread runs, as fsspec's clients have one, for a caller who waits for it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import time
from collections.abc import Callable, Coroutine
from typing import Any

from holdfast.storage import hurry
from holdfast.storage.remote.failures import cause_of, translated

_GRACE = 2.0  # seconds for an answer that nobody waits for any longer: a server that is well needs no more


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
    future = asyncio.run_coroutine_threadsafe(_caught(work), loop)
    try:
        hurried = 0.0
        while not concurrent.futures.wait([future], timeout=hurry.SLICE).done:
            loop.call_soon_threadsafe(int)  # an error if it has ended
            now = time.monotonic()
            hurried = (hurried or now) if hurry.is_hurried() else 0.0
            if hurried and now - hurried >= _GRACE:
                raise InterruptedError(errno.EINTR, f"{what}: given up without an answer, as nobody waits for it")
        result, error = future.result()
    finally:
        future.cancel()
    if error is not None:
        known = errors(error, what)
        raise known from cause_of(known, error)
    return result


async def _caught(work: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, Exception | None]:
    """Return what it returns, and what it raises: a future would make another time-out of one, without its cause."""
    try:
        return await work(), None
    except Exception as error:  # noqa: BLE001 - raised by the one who waits
        return None, error
