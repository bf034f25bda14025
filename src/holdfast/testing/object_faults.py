"""What may go wrong with one request of an object store: faults for ``FaultyObjects.rule``.

A fault is a function of the request and of what does it. It returns an answer, or raises what a client would. Your own
are as good as these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.storage.remote.objects import Body, Listed

_T = TypeVar("_T")


@dataclass(frozen=True)
class Request:
    """One call of an ``Objects``.

    Attributes:
        number: its place among all, from 1 on.
        kind: the method's name.
        key: the object's; of a listing the prefix, of a removal the first.
        memory: what ``get_into`` reads into.
        data: what a ``put`` or a ``part`` sends.
        conditional: whether it is to be done only if a condition holds.
        past: of a listing, what it would have shown so many changes ago.

    """

    number: int
    kind: str
    key: str
    memory: memoryview | None = field(default=None, repr=False, compare=False)
    data: Body | None = field(default=None, repr=False, compare=False)
    conditional: bool = field(default=False, repr=False, compare=False)
    past: Callable[[int], Iterator[Listed]] | None = field(default=None, repr=False, compare=False)


# Given the request, and what does it: called with nothing, or of what sends bytes with others in their place.
Fault = Callable[[Request, Callable[..., Any]], Any]


def refused(error: Callable[[], OSError] = lambda: ConnectionError("503 SlowDown: reduce your request rate")) -> Fault:
    """The request is not done, and that is said: by default an error that is worth another try."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        del request, go
        raise error()

    return fault


def lost() -> Fault:
    """The request is done, and its answer is lost."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
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


def conflict() -> Fault:
    """A request with a condition is told that it does not hold (412), or that others are at it (409); others go on."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        if request.conditional:
            raise FileExistsError("409 ConditionalRequestConflict")
        return go()

    return fault


def broken(after: int = 1) -> Fault:
    """The connection breaks in the midst: of a read, after its first bytes; of anything else, before it is done."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        if request.memory is not None:
            here = bytes(request.memory)
            count = min(go(), after)
            request.memory[count:] = here[count:]
        raise ConnectionResetError("the connection was reset in the midst")

    return fault


def short(to: int = 0) -> Fault:
    """A read claims success and has only its first ``to`` bytes."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        result = go()
        if request.kind == "get":
            return result[:to]
        return min(result, to) if request.kind == "get_into" else result

    return fault


def flipped(at: int = 0) -> Fault:
    """A byte of a read comes wrong."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        result = go()
        wrong = bytearray(result) if request.kind == "get" else request.memory
        if wrong:
            wrong[at % len(wrong)] ^= 0x10
        return bytes(wrong or b"") if request.kind == "get" else result

    return fault


def spoilt(at: int = 0) -> Fault:
    """A byte of what is sent reaches the server wrong."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        sent = request.data
        if sent is None:
            return go()
        wrong = bytearray(sent if isinstance(sent, (bytes, memoryview)) else b"".join(sent))
        if wrong:
            wrong[at % len(wrong)] ^= 0x10
        return go(bytes(wrong))

    return fault


def stale(*keys: str) -> Fault:
    """A listing lacks some objects, by the ends of their keys."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        result = go()
        if request.kind != "list":
            return result
        return (found for found in result if not found.key.endswith(keys))

    return fault


def lagging(changes: int = 1) -> Fault:
    """A listing is as it was so many changes ago: it lacks what is new, and has what is gone, with its old etag.

    Only what was changed through the same wrapper counts.
    """

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        return go() if request.past is None else request.past(changes)

    return fault


def cut_listing(after: int = 0) -> Fault:
    """A listing breaks off with an error after so many objects."""

    def fault(request: Request, go: Callable[..., Any]) -> Any:
        return _cut(go(), after) if request.kind == "list" else go()

    return fault


def _cut(listed: Iterable[_T], after: int) -> Iterator[_T]:
    yield from itertools.islice(listed, after)
    raise ConnectionResetError("the listing broke off")
