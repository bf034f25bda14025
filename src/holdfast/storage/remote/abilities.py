"""What an object store can do: tried, with objects that are removed, and never assumed from its URL.

Some servers answer a put with a condition as if they had none, some keep it for a put and not for the end of an
upload in parts, some not in a bucket with versions. A run that went by what the URL promises would overwrite another.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.storage.contract import HIDDEN
from holdfast.storage.remote.conditional import create, replace
from holdfast.storage.remote.objects import Head, Objects

_RACERS = 8
_TEMPORARY = ".tmp"  # how the names of what a sweep may remove end


@dataclass(frozen=True)
class RemoteAbilities:
    """What was found out about a server and a bucket. Each ability is "" if it is there, else why it is not.

    Attributes:
        writing: making, listing and removing an object; nothing else could be tried without it.
        absent: a put only where nothing is (``If-None-Match: *``).
        match: a put only over what has a given etag (``If-Match``).
        absent_parts: the end of an upload in parts only where nothing is; tried by ``thorough`` alone.
        uploads: a listing of the uploads in parts that were not ended; tried by ``thorough`` alone.
        listing: a listing that shows at once what was put.

    """

    writing: str = ""
    absent: str = ""
    match: str = ""
    absent_parts: str = ""
    uploads: str = ""
    listing: str = ""

    @property
    def conditions(self) -> bool:
        """Whether one of several that put with a condition wins, and the others are told."""
        return not (self.writing or self.absent or self.match)


_NOT_TRIED = "not tried"
_IGNORED = "it reports success, and writes over what is there"

_known: dict[str, RemoteAbilities] = {}  # by client and bucket: what a bucket can do does not change while we live


def abilities_of(objects: Objects, base: str) -> RemoteAbilities:
    """Return what was found out in this process about a bucket; the first time that costs up to six requests.

    Raises:
        OSError: if it could not be tried.

    """
    place = f"{objects.client} {base.partition('/')[0]}"
    if place not in _known:
        _known[place] = probe(objects, base)
    return _known[place]


def forget_abilities() -> None:
    """Ask anew the next time: for tests, whose servers change under one name."""
    _known.clear()


def probe(objects: Objects, base: str) -> RemoteAbilities:
    """Try what runs depend on: at most six requests, one after the other.

    Raises:
        OSError: if an object can be neither made nor removed there.

    """
    with _probed(objects, base) as key:
        first = _try(lambda: create(objects, key, _some()))
        if first.error:  # a server that knows no conditions may refuse them
            objects.put(key, _some())
        absent = first.error or _refused(lambda: objects.put(key, _some(), absent=True))
        match = absent or _matches(objects, key, first.etag)
        listed = any(item.key.strip("/") == key.strip("/") for item in objects.list(key))
    listing = "" if listed else "what was just put is not in it"
    return RemoteAbilities("", absent, match, _NOT_TRIED, _NOT_TRIED, listing)


def thorough(objects: Objects, base: str) -> RemoteAbilities:
    """Try everything, by races as well; for those who look. Nothing is an error."""
    try:
        found = probe(objects, base)
        absent = found.absent or _race(objects, base)
        return RemoteAbilities(
            "", absent, absent or found.match, _parts(objects, base), _uploads(objects, base), found.listing
        )
    except OSError as error:
        return RemoteAbilities(str(error) or type(error).__name__)


@dataclass
class _Tried:
    etag: str = ""
    error: str = ""


def _try(attempt: Callable[[], Head | None]) -> _Tried:
    try:
        head = attempt()
    except (TimeoutError, ConnectionError, PermissionError):
        raise
    except (OSError, NotImplementedError) as error:
        return _Tried(error=f"it is refused: {error or type(error).__name__}")
    return _Tried(error="it is refused, though it holds") if head is None else _Tried(head.etag)


def _refused(attempt: Callable[[], object]) -> str:
    """Return "" if an attempt is refused as it should be, else what came of it."""
    try:
        attempt()
    except FileExistsError:
        return ""
    return _IGNORED


def _matches(objects: Objects, key: str, etag: str) -> str:
    """Try to replace by an etag, and by one that is no longer right."""
    if not etag:
        return "its objects have no etags"
    tried = _try(lambda: replace(objects, key, _some(), etag))
    if tried.error:
        return tried.error
    return _refused(lambda: objects.put(key, _some(), match=etag))


@contextmanager
def _probed(objects: Objects, base: str) -> Iterator[str]:
    """Yield a key of its own, whose object is removed; one that a kill leaves is swept as any unfinished write."""
    key = f"{base}/{HIDDEN}{secrets.token_hex(8)}{_TEMPORARY}"
    try:
        yield key
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            objects.remove([key])
        raise
    objects.remove([key])


def _some() -> bytes:
    return secrets.token_hex(8).encode()


def _race(objects: Objects, base: str) -> str:
    """Have several create one object at the same time; return "" if one did, and no other."""
    won: list[bool] = []
    start = threading.Barrier(_RACERS)

    def run(key: str) -> None:
        with contextlib.suppress(OSError):  # refused, as all but one should be
            start.wait()
            objects.put(key, _some(), absent=True)
            won.append(True)

    with _probed(objects, base) as key:
        threads = [threading.Thread(target=run, args=(key,), name="holdfast-probe") for _ in range(_RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return "" if len(won) == 1 else f"of {_RACERS} that created one object at the same time, {len(won)} were told so"


def _parts(objects: Objects, base: str) -> str:
    """Try whether the end of an upload in parts is refused where an object is."""
    if objects.parts is None:
        return "it takes no uploads in parts"
    with _probed(objects, base) as key:
        objects.put(key, _some())
        upload = objects.begin(key)
        try:
            etag = objects.part(key, upload, 1, _some())
            refused = _refused(lambda: objects.complete(key, upload, [etag], absent=True))
        except (OSError, NotImplementedError) as error:
            refused = f"it is refused: {error or type(error).__name__}"
        with contextlib.suppress(OSError):  # it is completed
            objects.abort(key, upload)
    return refused


def _uploads(objects: Objects, base: str) -> str:
    """Try whether an upload that was begun is listed."""
    if objects.parts is None:
        return "it takes no uploads in parts"
    if objects.parts.lapses:
        return ""  # there is none to be found
    with _probed(objects, base) as key:
        upload = objects.begin(key)
        try:
            listed = any(found.id == upload for found in objects.uploads(key))
        except (OSError, NotImplementedError) as error:
            return f"it is refused: {error or type(error).__name__}"
        finally:
            objects.abort(key, upload)
    return "" if listed else "an upload that was begun is not in it"
