"""The line that a blocking request of botocore's HTTP client uses: from another thread it can be cut.

So one who is not waited for any longer is not held up by a server that says nothing, for as long as its silence may be.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any


class Line:
    """The socket that the request under way uses, once there is one.

    Args:
        connecting: seconds that a new one may take.

    """

    def __init__(self, connecting: float) -> None:
        """Have none yet."""
        self.connecting = connecting
        self._socket: Any = None

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Have this thread's request use it."""
        _own.line = self
        try:
            yield
        finally:
            _own.line = self._socket = None  # it may be another request's from now on

    def note(self, used: Any) -> None:
        """Take note of the socket."""
        self._socket = used

    def cut(self) -> None:
        """End what waits for it. From any thread, as often as need be."""
        used = self._socket
        if used is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(used, socket.SHUT_RDWR)  # not that of TLS, which is the other thread's


class _Own(threading.local):
    line: Line | None = None


_own = _Own()


@functools.lru_cache
def session_kind() -> type:
    """Return botocore's HTTP client, whose connections tell their line of the socket."""
    from botocore import awsrequest  # noqa: PLC0415 - where it is used s3fs has imported it
    from botocore.httpsession import URLLib3Session  # noqa: PLC0415

    class Session(URLLib3Session):  # type: ignore[misc,unused-ignore]
        def __init__(self, **words: Any) -> None:
            super().__init__(**words)
            plain, secure = awsrequest.AWSHTTPConnectionPool, awsrequest.AWSHTTPSConnectionPool
            self._pool_classes_by_scheme = {"http": _telling(plain), "https": _telling(secure)}
            self._manager.pool_classes_by_scheme = self._pool_classes_by_scheme

    return Session


@functools.lru_cache
def _telling(pool: Any) -> type:
    """Return a kind of pool whose connections tell of their socket, and take no longer to be made than may be."""

    class Telling(pool.ConnectionCls):  # type: ignore[misc]
        timeout: Any

        def request(self, *args: Any, **words: Any) -> Any:
            if _own.line is not None:
                _own.line.note(self.sock)
            return super().request(*args, **words)

        def connect(self) -> Any:
            line, silence = _own.line, self.timeout
            if line is None:
                return super().connect()
            self.timeout = line.connecting
            try:
                made = super().connect()
            finally:
                self.timeout = silence
            self.sock.settimeout(silence)
            line.note(self.sock)
            return made

    return type(pool.__name__, (pool,), {"ConnectionCls": Telling})
