"""Wrappers of ``Objects``, the requests of an object store: one counts them, one fails them on purpose.

Each has the interface of what it wraps. Put one in under a store by ``replace(store, objects=Wrapper(store.objects))``.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, Objects, PartRules, Upload
from holdfast.testing.faults import Rule, Rules

_T = TypeVar("_T")
_PAGE = 1000  # keys in a page of a listing


@dataclass(frozen=True)
class Request:
    """One call of an ``Objects``: its number from 1 on, the method's name, the key (of a listing, the prefix)."""

    number: int
    kind: str
    key: str
    memory: memoryview | None = field(default=None, repr=False, compare=False)  # what ``get_into`` reads into


class _Wrapped:
    """All of ``Objects``, each call through ``_call``."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects

    def _call(self, kind: str, key: str, go: Callable[[], Any], data: Bytes = b"") -> Any:
        raise NotImplementedError

    @property
    def client(self) -> str:
        """The wrapped one's."""
        return self.inner.client

    @property
    def parts(self) -> PartRules | None:
        """The wrapped one's."""
        return self.inner.parts

    def head(self, key: str) -> Head:
        """Look at an object."""
        found: Head = self._call("head", key, lambda: self.inner.head(key))
        return found

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        if end <= start:
            return b""
        data: bytes = self._call("get", key, lambda: self.inner.get(key, start, end))
        return data

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        if not len(view):
            return 0
        count: int = self._call("get_into", key, lambda: self.inner.get_into(key, start, view), view)
        return count

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object."""
        head: Head = self._call("put", key, lambda: self.inner.put(key, data, absent=absent, match=match))
        return head

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        upload: str = self._call("begin", key, lambda: self.inner.begin(key))
        return upload

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        etag: str = self._call("part", key, lambda: self.inner.part(key, upload, number, data), data)
        return etag

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        head: Head = self._call("complete", key, lambda: self.inner.complete(key, upload, etags, absent=absent))
        return head

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up."""
        self._call("abort", key, lambda: self.inner.abort(key, upload))

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads whose keys begin so."""
        found: list[Upload] = self._call("uploads", prefix, lambda: self.inner.uploads(prefix))
        return found

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload."""
        found: dict[int, Head] = self._call("parts_of", key, lambda: self.inner.parts_of(key, upload))
        return found

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        found: Iterator[Listed] = self._call("list", prefix, lambda: self.inner.list(prefix, deep=deep))
        return found

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects."""
        self._call("remove", next(iter(keys), ""), lambda: self.inner.remove(keys))

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side."""
        self._call("copy", target, lambda: self.inner.copy(source, target))


class CountingObjects(_Wrapped):
    """Counts the requests that go through it, by the names of the methods. Safe in threads.

    Attributes:
        calls: all of them, in the order in which they began.
        sent, received: bytes of objects, those of failed calls not counted.

    A listing is counted once a page of 1,000 keys, as far as it was read.

    """

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._one_at_a_time = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        with self._one_at_a_time:
            self.calls: list[Request] = []
            self.sent = self.received = 0

    @property
    def counts(self) -> Counter[str]:
        """How many requests of each kind."""
        with self._one_at_a_time:
            return Counter(call.kind for call in self.calls)

    def _count(self, kind: str, key: str) -> None:
        with self._one_at_a_time:
            self.calls.append(Request(len(self.calls) + 1, kind, key))

    def _call(self, kind: str, key: str, go: Callable[[], Any], data: Bytes = b"") -> Any:
        self._count(kind, key)
        result = go()
        with self._one_at_a_time:
            if kind == "part":
                self.sent += memoryview(data).nbytes
            elif kind == "put":
                self.sent += result.size
            elif kind == "get":
                self.received += len(result)
            elif kind == "get_into":
                self.received += result
        return self._paged(key, result) if kind == "list" else result

    def _paged(self, prefix: str, listed: Iterator[Listed]) -> Iterator[Listed]:
        for number, found in enumerate(listed):
            if number and number % _PAGE == 0:
                self._count("list", prefix)
            yield found


Fault = Callable[
    [Request, Callable[[], Any]], Any
]  # given the request, and what does it; returns the answer, or raises


class FaultyObjects(_Wrapped):
    """Fails requests by rules, and lets all others through.

    ``rule(fault, kinds=..., key=..., skip=..., times=...)`` adds one: see ``holdfast.testing.faults.Rules.rule``. The
    faults of this module: ``refused, lost, unanswered, short, flipped, stale, cut_listing``; any other is a function of
    the request and of what would do it. ``asked`` has the requests so far, those that failed too.
    """

    def __init__(self, objects: Objects) -> None:
        super().__init__(objects)
        self._rules = Rules()
        self._one_at_a_time = threading.Lock()
        self.asked: list[Request] = []

    def rule(self, fault: Fault, **which: Any) -> Rule:
        """Add a rule; the first that wants a request has it."""
        return self._rules.rule(fault, **which)

    def no_rules(self) -> None:
        """From now on nothing fails."""
        self._rules.no_rules()

    def _call(self, kind: str, key: str, go: Callable[[], Any], data: Bytes = b"") -> Any:
        memory = data if kind == "get_into" and isinstance(data, memoryview) else None
        with self._one_at_a_time:
            request = Request(len(self.asked) + 1, kind, key, memory)
            self.asked.append(request)
        fault = self._rules.fault_for(request)
        return go() if fault is None else fault(request, go)


def refused(error: Callable[[], OSError] = lambda: ConnectionError("503 SlowDown: reduce your request rate")) -> Fault:
    """The request is not done, and that is said: by default an error that is worth another try."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        del request, go
        raise error()

    return fault


def lost() -> Fault:
    """The request is done, and its answer is lost."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        del request
        go()
        raise ConnectionResetError("the connection was reset before the answer came")

    return fault


def unanswered() -> Fault:
    """The request is not done, and nobody says so."""
    return refused(lambda: TimeoutError("no answer came in time"))


def expired() -> Fault:
    """The credentials were valid until now."""
    return refused(lambda: PermissionError("ExpiredToken: the provided token has expired"))


def short(to: int = 0) -> Fault:
    """A read claims success and has only its first ``to`` bytes."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        result = go()
        if request.kind == "get":
            return result[:to]
        return min(result, to) if request.kind == "get_into" else result

    return fault


def flipped(at: int = 0) -> Fault:
    """A byte of a read comes wrong."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        result = go()
        wrong = bytearray(result) if request.kind == "get" else request.memory
        if wrong:
            wrong[at % len(wrong)] ^= 0x10
        return bytes(wrong or b"") if request.kind == "get" else result

    return fault


def stale(*keys: str) -> Fault:
    """A listing lacks some objects, by the ends of their keys."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        result = go()
        if request.kind != "list":
            return result
        return (found for found in result if not found.key.endswith(keys))

    return fault


def cut_listing(after: int = 0) -> Fault:
    """A listing breaks off with an error after so many objects."""

    def fault(request: Request, go: Callable[[], Any]) -> Any:
        return _cut(go(), after) if request.kind == "list" else go()

    return fault


def _cut(listed: Iterator[_T], after: int) -> Iterator[_T]:
    yield from itertools.islice(listed, after)
    raise ConnectionResetError("the listing broke off")
