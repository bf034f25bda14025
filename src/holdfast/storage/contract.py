"""The contract of a store: a flat set of named blobs under one root."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.records import MANIFEST_FILE

HIDDEN = ".holdfast-"  # how the names begin of the files and folders that are no blobs like others
SEAL = MANIFEST_FILE  # a folder with a file of this name is one blob, of several files: a bundle
PLAIN = ".metadata"  # what torch.distributed.checkpoint writes last, in a folder that it may replace itself
PLAIN_FILES = re.compile(r"\.metadata.*|.*\.distcp|meta\.pt", re.DOTALL)  # what it, and Lightning, put there
NO_BLOB = -1  # the size, in a listing of what is hidden, of what stands there and is no file that can be read


@dataclass(frozen=True)
class Blob:
    """One named blob: its name relative to the root (parts joined by ``/``) and bytes.

    ``file_id`` is the same for two names that share their bytes ("" where that cannot be told). Of a ``bundle`` the
    size is that of its seal: a listing does not look at each of its files, ``Store.size`` does. ``stamp`` is another
    when the content is: an object's etag, "" where a listing does not tell.
    """

    name: str
    size: int
    file_id: str = field(default="", compare=False)
    bundle: bool = False
    stamp: str = field(default="", compare=False)


@dataclass(frozen=True)
class Free:
    """What is left where blobs lie: bytes, and files (None where there is no limit on their number)."""

    bytes: int
    files: int | None = None


Chunks = Iterable[bytes | memoryview]


class Draft(Protocol):
    """A bundle that is being written, which no listing shows and no sweep takes while we live."""

    @property
    def folder(self) -> str:
        """A folder's name relative to the root. Files are put as ``f"{folder}/{name}"``, by this process or any other.

        Their names are ``marked``: stores that cannot rename have only one folder for the bundle and the one that it
        is to replace.
        """
        ...

    @property
    def mark(self) -> str:
        """What is in the names of the files that are put: of each draft another, unless it is a copy."""
        ...

    def add(self, name: str, data: bytes) -> None:
        """Add a small file whose name other bundles have as well, such as the seal; by this process alone."""
        ...

    def settle(self, sizes: Mapping[str, int] | None = None, gate: Callable[[], None] | None = None) -> None:
        """Give the bundle its name, in one durable step, in the place of what had it; the old one is removed.

        Everything in it has been put or added, its seal too. On an error nothing has changed, and it is still a draft.

        Args:
            sizes: the bytes of the files that were put, by name; a store where that is a question looks whether it
                has them all.
            gate: called right before that step, which is not done if it raises.

        Raises:
            OSError: if it has no seal, or not the files; if what has the name is a folder and no bundle; or the
                system says so.

        """
        ...

    def drop(self) -> None:
        """Remove it with all that was written. Nothing, once it is settled or dropped; never an error."""
        ...


class Store(Protocol):
    """What every home of checkpoints can do.

    A name is relative to the root. Errors are ``OSError``: ``FileNotFoundError`` for a name that is
    not there, whatever the system says otherwise.

    A blob is a file or a bundle: a folder that has a file called ``SEAL``, and that appears, moves and goes as one.
    Each of its files is read by its own name, ``f"{bundle}/{file}"``, and is in no listing of ``blobs``.
    """

    @property
    def root(self) -> str:
        """The directory or URL under which the names lie."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether the names are files of this machine's filesystem."""
        ...

    def path(self, name: str) -> str:
        """Return the path or URL of a name, as other programs take it."""
        ...

    def name_of(self, path: str) -> str | None:
        """Return the name that a path or URL has in this store, or None if it lies elsewhere."""
        ...

    def blobs(self, depth: int = 0, odd: dict[str, str] | None = None) -> list[Blob]:
        """Return the committed blobs, at most ``depth`` folders down, sorted by name.

        A bundle is one of them. Without what lies in hidden folders: those whose names begin with ``HIDDEN``. ``odd``,
        if given, takes the name of all else that stands there and is no blob, each with the reason: links that lead
        nowhere, pipes, and folders that may not be read, which are an error without it.
        """
        ...

    def files(self, folder: str) -> list[Blob]:
        """Return the files right in a folder, a bundle or not, by their names in it, sorted; none if it is not there.

        All that stands there and is a file, uncommitted ones too.
        """
        ...

    def hidden(self, folder: str, depth: int = 0) -> list[Blob]:
        """Return the committed blobs in the hidden folders of this name, sorted by name.

        In the root's, and in those at most ``depth`` folders down; what lies in them and one folder further. What
        stands there and is no blob (a link, a folder too deep, one that may not be read) has the size ``NO_BLOB``.
        No link is followed. Where there is no such folder, that costs one look.
        """
        ...

    def leftovers(self, depth: int = 0) -> list[str]:
        """Return the names of unfinished writes and drafts, also of living writers, at most ``depth`` folders down.

        In hidden folders as well.
        """
        ...

    def exists(self, name: str) -> bool:
        """Tell whether a committed blob of this name is there."""
        ...

    def size(self, name: str) -> int:
        """Return the bytes of a blob, those of all its files if it is a bundle."""
        ...

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Return something that is another when the blob is written anew; None where that cannot be told."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end."""
        ...

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Read straight into memory; return the bytes read: fewer than it has room for only at the blob's end.

        Side by side inside, where that is faster.
        """
        ...

    def put(
        self,
        name: str,
        chunks: Chunks,
        *,
        over: str = "",
        gate: Callable[[], None] | None = None,
        size: int = 0,
    ) -> int:
        """Write a blob so that it appears whole, durable and at once, or not at all.

        Replaces a blob of the same name only at the moment of the commit. Returns the bytes written.
        A chunk of writable memory has to stay as it is until ``put`` returns: it may be written from
        where it lies. Of memory that is read-only, and no ``bytes``, that holds only until the next chunk
        is asked for: its owner may use it again. ``over`` is what ``retire`` has returned, whose space may
        be used. ``gate`` is called when all bytes are written and none is committed; if it raises, nothing
        is. ``size`` says how many bytes there will be, about, where that is known: a large blob is cut
        accordingly.
        """
        ...

    def draft(self, name: str, mark: str = "") -> Draft:
        """Begin a bundle that will have this name. A copy of another bundle has that one's ``mark``.

        Raises:
            OSError: if the folder for it cannot be made.

        """
        ...

    def retire(self, name: str) -> str:
        """Take a blob's name away, and return the name under which its space is kept; "" where it is removed.

        The blob is gone at once for every reader by name. What is returned is for ``put(..., over=...)``
        or for ``remove``; what becomes neither is removed by a later ``sweep``.
        """
        ...

    def move(self, name: str, target: str) -> bool:
        """Give a blob another name, in one durable step; never over another blob.

        Returns False, and does nothing, where the store has no such step. Raises ``FileExistsError`` if
        the name is taken.
        """
        ...

    def hold(self, name: str, *, alone: bool = False) -> AbstractContextManager[bool]:
        """Hold a blob while something that depends on it is done, against all who would hold it alone.

        Waits a moment for those who do. Yields whether it is held, and there. It is an agreement among those who ask,
        and no more: whoever does not ask is not kept from anything. Where the store has no such thing, it yields
        whether the blob is there.
        """
        ...

    def link(self, source: str, target: str) -> str:
        """Make ``target`` another name of ``source``'s bytes, as atomically as ``put``.

        Returns how: ``"hard link"``, ``"reflink"`` or ``"copy"``. Of a bundle: a folder of such names.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a blob; one that is not there is no error."""
        ...

    def free(self) -> Free | None:
        """Return what is left for this user where the blobs lie; None where that cannot be asked.

        Quotas of users and projects are not known to it.
        """
        ...

    def sweep(self, depth: int = 0) -> list[str]:
        """Remove what writers that died have left at most ``depth`` folders down; return the names.

        In hidden folders as well.
        """
        ...
