"""The bytes of parts and ranges through blocking sockets, by the threads that wait for them.

aiobotocore makes and signs every request and reads every answer. Only many bytes go another way: those of a body from
where they lie, those of a range to where they belong, by botocore's own HTTP client (urllib3), with no copy in between
and without Python's lock. The loop of fsspec has one thread for all requests, and each byte passes its buffers.
"""

from __future__ import annotations

import copy
import errno
import functools
import inspect
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from holdfast.storage import hurry
from holdfast.storage.remote.lines import Line, session_kind
from holdfast.storage.remote.looped import by_caller, has_caller
from holdfast.storage.remote.sending import SLICE, Body, payload

_LEAST = 1 << 18  # bytes: fewer are there sooner by the loop itself, without two more changes of threads
_OK = frozenset({200, 206})
_landing: ContextVar[Landing | None] = ContextVar("landing", default=None)


@dataclass
class Landing:
    """Memory for the body of the answer to the next request of this task.

    Attributes:
        view: the memory.
        filled: how many bytes came; None if the body went no such way, and is to be read from the answer.

    """

    view: memoryview
    filled: int | None = None

    def expect(self) -> None:
        """Let the next answer come here."""
        _landing.set(self)


def session_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to add to the configuration of a client so that it works so.

    Nothing where the configuration has a session or a connector of its own, or this aiobotocore takes no session.
    """
    from aiobotocore.config import AioConfig  # noqa: PLC0415 - where it is used s3fs has imported it

    known = "http_session_cls" in inspect.signature(AioConfig.__init__).parameters
    return {"http_session_cls": _kind()} if known and not {"http_session_cls", "connector_args"} & {*said} else {}


@functools.lru_cache
def _kind() -> type:
    """Return the kind of session: aiobotocore's, but for bodies of ours and answers that have a landing."""
    from aiobotocore.awsrequest import AioAWSResponse  # noqa: PLC0415 - where it is used s3fs has imported it
    from aiobotocore.httpsession import AIOHTTPSession  # noqa: PLC0415

    class Session(AIOHTTPSession):  # type: ignore[misc,unused-ignore]
        takes_bodies = True

        def __init__(self, **words: Any) -> None:
            super().__init__(**words)
            timeout = words.get("timeout")
            silence = timeout[1] if isinstance(timeout, (list, tuple)) else timeout
            self._silence = float(silence or 60)
            self._connecting = float((timeout[0] if isinstance(timeout, (list, tuple)) else timeout) or self._silence)
            own = {name: value for name, value in words.items() if name != "connector_args"}
            # urllib3 holds a send to the limit for connecting, which is too short for a disk that is full of work.
            own["timeout"] = (self._silence, self._silence)
            self._may = isinstance(own.get("verify", True), (bool, str))
            self._blocking = session_kind()(**own) if self._may else None

        async def __aexit__(self, *error: object) -> None:
            if self._blocking is not None:
                self._blocking.close()
            await super().__aexit__(*error)

        async def send(self, request: Any) -> Any:
            wants = request.method == "GET" and request.stream_output  # not what s3fs asks before: where a bucket is
            landing = _landing.get() if wants else None
            body = request.body if isinstance(request.body, Body) else None
            size = len(body) if body is not None else 0 if landing is None else len(landing.view)
            if self._blocking is None or not has_caller() or size < _LEAST:
                if body is not None:
                    request.body = payload(body.view, self._silence)
                return await super().send(request)
            wanted = copy.copy(request)
            wanted.stream_output = True
            if body is not None:
                wanted.body = _Slices(body.view)
            line = Line(self._connecting)
            exchange = functools.partial(_exchange, self._blocking, wanted, landing, line)
            answer, data = await by_caller(exchange, line.cut)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return AioAWSResponse(answer.url, answer.status_code, headers, _Read(data))

    return Session


def _exchange(session: Any, request: Any, landing: Landing | None, line: Line) -> tuple[Any, bytes]:
    """Send a request and take its answer: the body into the landing, if it has what was asked for.

    Raises:
        InterruptedError: if it failed when nobody waited for it any longer: its line may have been cut for that.
        TimeoutError: if the server took nothing, or said nothing, for too long.

    """
    try:
        with line.used():
            return _exchanged(session, request, landing)
    except Exception as error:
        if hurry.is_hurried():
            raise InterruptedError(errno.EINTR, "given up without an answer, as nobody waits for it") from error
        raise


def _exchanged(session: Any, request: Any, landing: Landing | None) -> tuple[Any, bytes]:
    try:
        answer = session.send(request)
    except Exception as error:
        if _was_silence(error):
            raise TimeoutError("the server took nothing, or said nothing, for too long") from error
        raise
    raw = answer.raw
    try:
        if landing is not None and answer.status_code in _OK:
            landing.filled = _fill(raw, landing.view)
            data = b""
        else:
            data = raw.read()
    except BaseException:
        raw.close()  # what is under way on this line belongs to nobody
        raise
    raw.release_conn()
    return answer, data


def _was_silence(error: BaseException | None) -> bool:
    """Tell whether a time limit is behind an error: urllib3 calls one that ends while it sends an aborted line."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None


def _fill(raw: Any, view: memoryview) -> int:
    """Read a body into memory; return how many bytes there were.

    Raises:
        ConnectionError: if there are more than there is room for.

    """
    stream = raw if getattr(raw, "_fp", None) is None else raw._fp  # noqa: SLF001 - urllib3's own way is one more copy
    at = 0
    while at < len(view):
        got = stream.readinto(view[at:])
        if not got:
            break
        at += got
    more = stream.read(1) if at == len(view) else b""  # reads the end as well: only then the line is free
    if more:
        msg = f"more bytes came than the {len(view)} that were asked for"
        raise ConnectionError(msg)
    return at


class _Slices:
    """A body in slices, each of which has the time limit of the socket."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def __iter__(self) -> Iterator[memoryview]:
        for at in range(0, len(self._view), SLICE):
            if hurry.is_hurried():
                raise InterruptedError(errno.EINTR, "nobody waits any longer for what is being sent")
            yield self._view[at : at + SLICE]


class _Read:
    """An answer's bytes, which have come already, as aiobotocore reads them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else size
        data, self._data = self._data[:end], self._data[end:]
        return data

    def close(self) -> None:
        """Have nothing to close."""
