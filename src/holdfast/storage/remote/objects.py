"""The requests of an object store, as few as a checkpoint needs. What speaks to a server is behind this interface.

Wrappers have the same interface: one that tries again, one that counts, one that fails on purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Bytes = bytes | memoryview
Body = Bytes | Iterable[Bytes]


@dataclass(frozen=True)
class Head:
    """What a server says of an object.

    Attributes:
        size: in bytes.
        etag: another one when the content is; without quotes; "" where there is none.
        modified: by the server's clock; None where it does not say.

    """

    size: int
    etag: str = ""
    modified: datetime | None = None


@dataclass(frozen=True)
class Listed(Head):
    """An object of a listing, by its key."""

    key: str = ""


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was begun and neither completed nor aborted."""

    key: str
    id: str
    begun: datetime | None = None


@dataclass(frozen=True)
class PartRules:
    """How a server takes an object in parts: sizes in bytes; the last part may be smaller than ``least``.

    With ``lapses`` the server itself soon forgets the parts of which no object was made, and lists no such upload.
    """

    least: int = 5 << 20
    most: int = 5 << 30
    count: int = 10_000
    lapses: bool = False


class Objects(Protocol):
    """One object store. Blocking calls, from any thread; each is one request (a listing: one a page), tried once.

    A key is what the URL has behind its scheme: ``bucket/run/x.ckpt``. Errors are ``OSError``: ``FileNotFoundError``
    for what is not there, ``FileExistsError`` for a condition that does not hold, ``PermissionError`` for a refusal,
    ``TimeoutError`` and ``ConnectionError`` for what may succeed if it is tried again. None has a secret in its text.
    """

    @property
    def client(self) -> str:
        """The library that speaks to the server."""
        ...

    @property
    def parts(self) -> PartRules | None:
        """How objects are taken in parts; None where ``begin`` and what belongs to it are not to be had."""
        ...

    def head(self, key: str) -> Head:
        """Look at an object."""
        ...

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range, ``end`` excluded; fewer only at the object's end. An empty range is no request.

        An answer that is shorter than it says is a ``ConnectionError``.
        """
        ...

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory; return how many bytes there were."""
        ...

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:
        """Make an object, or replace it, in one step, of bytes or of pieces of bytes in their order.

        Pieces are taken one after the other where ``parts`` is None, so that a large object need not be in memory;
        elsewhere they are joined first. If taking them raises, its error comes out and nothing is made. What can be
        gone through only once is sent once, without a second try.

        With ``absent`` only if there is none, with ``match`` only if there is one of this etag: where the server
        keeps such conditions, which only a probe tells.
        """
        ...

    def begin(self, key: str) -> str:
        """Begin an upload in parts; return its id."""
        ...

    def part(self, key: str, upload: str, number: int, data: Bytes) -> str:
        """Send one part, numbered from 1; return its etag. The same number again replaces it."""
        ...

    def complete(self, key: str, upload: str, etags: list[str], *, absent: bool = False) -> Head:
        """Make the object of its parts, in one step."""
        ...

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up; one that is not there is no error."""
        ...

    def uploads(self, prefix: str) -> list[Upload]:
        """Return the uploads whose keys begin so. May be stale, or empty where the server does not tell."""
        ...

    def parts_of(self, key: str, upload: str) -> dict[int, Head]:
        """Return the parts that the server has of an upload, by their numbers.

        Raises:
            FileNotFoundError: if there is no such upload.

        """
        ...

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so, past every cache; without ``deep`` only down to the next slash."""
        ...

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects, as many in a request as the server takes; those that are not there are no error."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Copy on the server's side, of any size."""
        ...
