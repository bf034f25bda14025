"""Wrappers of ``Objects``, the requests of an object store: one counts them, one fails them on purpose.

Each has the interface of what it wraps. Put one under every URL that is opened by ``holdfast.testing.wrapping``, under
one store by ``replace(store, objects=Wrapper(store.objects))``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

from holdfast.storage.remote.objects import Body, Bytes, Head, Listed, Objects, PartRules, Upload
from holdfast.testing.faults import Rule, Rules
from holdfast.testing.object_faults import (
    Fault,
    Request,
    broken,
    conflict,
    cut_listing,
    expired,
    flipped,
    lagging,
    lost,
    refused,
    short,
    spoilt,
    stale,
    unanswered,
)
from holdfast.testing.past import Past

__all__ = [
    "CountingObjects",
    "Fault",
    "FaultyObjects",
    "Request",
    "broken",
    "conflict",
    "cut_listing",
    "expired",
    "flipped",
    "lagging",
    "lost",
    "refused",
    "short",
    "spoilt",
    "stale",
    "unanswered",
]

_PAGE = 1000  # keys in a page of a listing


class _Wrapped:
    """All of ``Objects``, each call through ``_call``."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects

    def _call(self, kind: str, key: str, go: Callable[..., Any], data: Body = b"", **what: Any) -> Any:
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
        head: Head = self._call(
            "put",
            key,
            lambda sent=data: self.inner.put(key, sent, absent=absent, match=match),
            data,
            conditional=absent or bool(match),
        )
        return head

    def begin(self, key: str) -> str:
        """Begin an upload in parts."""
        upload: str = self._call("begin", key, lambda: self.inner.begin(key))
        return upload

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part."""
        etag: str = self._call("part", key, lambda sent=data: self.inner.part(key, upload, number, sent), data)
        return etag

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts."""
        head: Head = self._call(
            "complete", key, lambda: self.inner.complete(key, upload, etags, absent=absent), conditional=absent
        )
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
        found: Iterator[Listed] = self._call("list", prefix, lambda: self.inner.list(prefix, deep=deep), deep=deep)
        return found

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects."""
        self._call("remove", next(iter(keys), ""), lambda: self.inner.remove(keys), keys=[*keys])

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

    def _call(self, kind: str, key: str, go: Callable[..., Any], data: Body = b"", **what: Any) -> Any:
        del what
        self._count(kind, key)
        result = go()
        with self._one_at_a_time:
            if kind == "part" and isinstance(data, (bytes, memoryview)):
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


class FaultyObjects(_Wrapped):
    """Fails requests by rules, and lets all others through.

    ``rule(fault, kinds=..., key=..., skip=..., times=...)`` adds one: see ``holdfast.testing.faults.Rules.rule``. The
    faults are those of ``holdfast.testing.object_faults``; any other is a function of the request and of what would do
    it. ``asked`` has the requests so far, those that failed too.

    Args:
        objects: what is wrapped.
        like: another one, whose rules, requests and past this one shares: several clients of one server.

    """

    def __init__(self, objects: Objects, like: FaultyObjects | None = None) -> None:
        super().__init__(objects)
        self._shared: tuple[Rules, Past, threading.Lock] = (Rules(), Past(), threading.Lock())
        self.asked: list[Request] = []
        if like is not None:
            self._shared, self.asked = like._shared, like.asked  # noqa: SLF001 - one class
        self._rules, self._past, self._one_at_a_time = self._shared

    def rule(self, fault: Fault, **which: Any) -> Rule:
        """Add a rule; the first that wants a request has it."""
        return self._rules.rule(fault, **which)

    def no_rules(self) -> None:
        """From now on nothing fails."""
        self._rules.no_rules()

    def forget(self) -> None:
        """Forget the rules, the requests, and what listings once were."""
        self._rules.no_rules()
        with self._one_at_a_time:
            self.asked.clear()
        self._past.clear()

    def _call(self, kind: str, key: str, go: Callable[..., Any], data: Body = b"", **what: Any) -> Any:
        memory = data if kind == "get_into" and isinstance(data, memoryview) else None
        sent = data if kind in ("put", "part") else None

        def before(changes: int) -> Iterator[Listed]:
            return self._past.before(changes, self._do("list", key, go), key, deep=what["deep"])

        def do(*sent_instead: Body) -> Any:
            return self._do(kind, key, lambda: go(*sent_instead), what.get("keys", ()))

        with self._one_at_a_time:
            request = Request(
                len(self.asked) + 1,
                kind,
                key,
                memory,
                sent,
                what.get("conditional", False),
                before if kind == "list" else None,
            )
            self.asked.append(request)
        fault = self._rules.fault_for(request)
        return do() if fault is None else fault(request, do)

    def _do(self, kind: str, key: str, go: Callable[[], Any], keys: Collection[str] = ()) -> Any:
        """Do it, and take note of what listings show from then on."""
        result = go()
        if kind in ("put", "complete", "copy"):
            head = self.inner.head(key)
            self._past.changed(key, Listed(head.size, head.etag, head.modified, key))
        elif kind == "remove":
            for gone in keys:
                self._past.changed(gone, None)
        elif kind == "list":
            return self._past.seen(result)
        return result
