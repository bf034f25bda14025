"""A proxy in front of a real object store that does to requests what networks and servers do: by rules, not by luck.

The signature stays valid: the client signs for the proxy's address, and ``Host`` goes to the server as it came.
A request has a kind, named as the methods of ``Objects`` are (``put, part, complete, get, head, list, ...``). The first
rule that wants a request has it::

    proxy.rule(refuse(503, "SlowDown"), kinds={"put", "part"}, times=3)
    proxy.rule(reset_answer(1000), kinds={"get"}, key=r"x\\.ckpt$", skip=2)

What can be done to a request is in ``tests/support/proxy_faults.py``.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import urllib.parse
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from holdfast.testing.faults import Rules

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "proxy-connection"}
_PIECE = 1 << 18
STALL = 60.0  # seconds that an answer that never comes is waited for, at most
_BARE_POST = {"uploads": "begin", "uploadid": "complete", "delete": "remove"}


@dataclass(frozen=True)
class Asked:
    """A request: its number from 1, its kind, and its key as ``bucket/name``."""

    number: int
    verb: str
    kind: str
    key: str
    query: dict[str, str] = field(default_factory=dict)
    size: int = 0


class Proxy(Rules):
    """A proxy in front of ``endpoint``, in threads of this process, from ``with`` to its end.

    ``asked`` has all requests in their order, ``counts`` how many there were of each kind.
    """

    def __init__(self, endpoint):
        super().__init__()
        target = urllib.parse.urlsplit(endpoint)
        self.target = (target.hostname, target.port)
        self.asked = []
        self.born = {}  # by key: the number of the request that made it
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def __enter__(self):
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = _Threads(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)

    @property
    def counts(self):
        with self.lock:
            return Counter(asked.kind for asked in self.asked)

    @contextmanager
    def watched(self):
        """Yield a counter that has, at the end, the requests by kind of what was done inside."""
        before, during = self.counts, Counter()
        yield during
        during.update(self.counts - before)

    def note(self, verb, target, size, *, copied=False):
        """Take a request down."""
        split = urllib.parse.urlsplit(target)
        query = {name.lower(): value for name, value in urllib.parse.parse_qsl(split.query, keep_blank_values=True)}
        key = urllib.parse.unquote(split.path).strip("/")
        with self.lock:
            kind = "copy" if copied else kind_of(verb, key, query)
            asked = Asked(
                len(self.asked) + 1, verb, kind, query.get("prefix", "") if kind == "list" else key, query, size
            )
            self.asked.append(asked)
        return asked

    def was_made(self, asked):
        """Take down that a request has made an object."""
        with self.lock:
            self.born[asked.key.partition("/")[2]] = asked.number

    def young(self, asked, age):
        """The keys that were made at most ``age`` requests ago, without their bucket."""
        with self.lock:
            return {key for key, number in self.born.items() if asked.number - number <= age}


def kind_of(verb, key, query):
    """Name a request as the methods of ``Objects`` are named."""
    if verb == "POST":
        return next((kind for name, kind in _BARE_POST.items() if name in query), "other")
    if "uploadid" in query:
        return {"PUT": "part", "DELETE": "abort", "GET": "parts_of"}.get(verb, "other")
    if verb == "GET" and "/" not in key:
        return "uploads" if "uploads" in query else "list" if {"list-type", "prefix"} & query.keys() else "other"
    if "/" not in key:
        return "bucket"
    return {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "remove"}.get(verb, "other")


class Answer:
    """What the server has said."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def shutdown_request(self, request):
        """Close, without a farewell that would come before a reset."""
        request.close()

    def handle_error(self, request, client_address):
        """Say nothing of connections that we or the client have reset."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def log_message(self, *_):
        """Be quiet."""

    def handle_any(self):
        size = int(self.headers.get("Content-Length") or 0)
        asked = self.proxy.note(self.command, self.path, size, copied="x-amz-copy-source" in self.headers)
        exchange = Exchange(self, asked)
        try:
            fault = self.proxy.fault_for(asked)
            exchange.answer(exchange.forward()) if fault is None else fault(exchange)
        except OSError:  # the client is gone, or the server behind us is
            exchange.reset()

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)


class Exchange:
    """One request in the hands of a fault: what can be done to it, in the order in which it happens."""

    def __init__(self, handler, asked):
        self._handler, self.asked, self.proxy = handler, asked, handler.proxy
        self._taken = False

    @property
    def request_headers(self):
        """Those that the client has sent, and that go on to the server as they are left."""
        return self._handler.headers

    def take(self, limit=None):
        """Return the bytes of the request, or its first ``limit``."""
        if self._taken:
            return b""
        self._taken = True
        if "chunked" in self._handler.headers.get("Transfer-Encoding", "").lower():
            return self._take_chunks()
        size = self.asked.size if limit is None else min(limit, self.asked.size)
        return self._handler.rfile.read(size)

    def _take_chunks(self):
        pieces = []
        while size := int(self._handler.rfile.readline().split(b";")[0], 16):
            pieces.append(self._handler.rfile.read(size))
            self._handler.rfile.readline()
        while self._handler.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def forward(self, body=None):
        """Let the server have the request, whole, and return what it answers; nobody else has seen that yet."""
        body = self.take() if body is None else body
        server = http.client.HTTPConnection(*self.proxy.target, timeout=STALL)
        try:
            server.putrequest(self._handler.command, self._handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._handler.headers.items():
                if name.lower() not in _HOP:
                    server.putheader(name, value)
            if body or self._handler.command in ("PUT", "POST"):
                server.putheader("Content-Length", str(len(body)))
            server.endheaders()
            for at in range(0, len(body), _PIECE):
                server.send(body[at : at + _PIECE])
            response = server.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionResetError("the server behind the proxy is gone") from error
        finally:
            server.close()
        if answer.status < 300 and self.asked.kind in ("put", "complete", "copy") and b"<Error>" not in answer.body:
            self.proxy.was_made(self.asked)
        return answer

    def answer(self, answer, *, length=None, cut=None):
        """Send an answer; saying another ``length`` than it has, or only up to ``cut`` bytes and then a reset."""
        handler = self._handler
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP:
                handler.send_header(name, value)
        said = next((value for name, value in answer.headers if name.lower() == "content-length"), "0")
        bare = self.asked.verb == "HEAD"
        handler.send_header("Content-Length", said if bare else str(len(answer.body) if length is None else length))
        handler.end_headers()
        if not bare:
            body = answer.body if cut is None else answer.body[:cut]
            handler.wfile.write(body)
        handler.wfile.flush()
        if cut is not None:
            self.reset()

    def reset(self):
        """Break the connection, as a machine on the way does that has forgotten it."""
        with suppress(OSError):
            self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.close_connection = True

    def hang(self):
        """Keep the connection and say nothing, until the proxy ends."""
        self.proxy.closing.wait(STALL)
        self.reset()
