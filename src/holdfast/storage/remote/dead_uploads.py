"""Uploads in parts that nobody goes on with: invisible, paid for, and aborted by the run that comes next.

Who holds the claim of a prefix knows that whatever was begun before it is dead: no other run may write there. What
somebody may still go on with, by a ticket, is kept. Without a claim only what is a day old is taken for dead.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from holdfast.storage.marks import mark_of
from holdfast.storage.remote.claims import claimed_at
from holdfast.storage.remote.objects import Objects, Upload

log = logging.getLogger("holdfast")

ABANDONED = timedelta(days=1)
_MARK = "?uploadId="  # as S3 itself addresses an upload

_kept: set[str] = set()


@dataclass(frozen=True)
class Dead:
    """An upload that was begun and not ended.

    Attributes:
        name: its key below the prefix, and its id, as S3 addresses it.
        upload: as the server knows it.
        size: bytes that the server keeps of it.

    """

    name: str
    upload: Upload
    size: int


def keep_uploads(ids: Collection[str]) -> None:
    """Have no sweep of this process abort these uploads: somebody has tickets for them."""
    _kept.update(ids)


def unfinished(objects: Objects, base: str) -> list[tuple[str, Upload]]:
    """Return all uploads below a prefix that were begun and not ended, living ones too, by name. One request.

    None where the server does not tell, or not this user.

    Raises:
        ConnectionError, TimeoutError: if it does not answer.

    """
    if objects.parts is None:
        return []
    start = len(base) + 1
    try:
        found = objects.uploads(f"{base}/")
    except (ConnectionError, TimeoutError):
        raise
    except (OSError, NotImplementedError) as error:
        log.debug("%s: uploads that were not ended cannot be listed: %s", base, error)
        return []
    return sorted(((f"{one.key[start:]}{_MARK}{one.id}", one) for one in found), key=lambda pair: pair[0])


def depth_of(name: str) -> int:
    """Return how many folders down the checkpoint lies to which an upload belongs: a shard is in one of its own."""
    file = name.partition(_MARK)[0]
    return file.count("/") - bool(mark_of(file))


def weighed(objects: Objects, found: Collection[tuple[str, Upload]]) -> list[Dead]:
    """Return how much the server keeps of each: one request for each."""
    return [Dead(name, upload, _size(objects, upload)) for name, upload in found]


def abort_dead(objects: Objects, base: str, depth: int, but: tuple[str, ...] = ()) -> Iterator[str]:
    """Abort the uploads that are dead for certain, at most ``depth`` folders down; yield their names.

    ``but``: the folders, as beginnings of names, that have owners of their own.
    """
    found = [
        (name, upload)
        for name, upload in unfinished(objects, base)
        if upload.id not in _kept and depth_of(name) <= depth and not name.startswith(but)
    ]
    if not found:
        return
    before = dead_before(objects, base)
    for name, upload in found:
        if upload.begun is not None and upload.begun < before:
            size = _size(objects, upload)
            objects.abort(upload.key, upload.id)
            log.info("aborted an upload of %s that was never ended; it held %d bytes", upload.key, size)
            yield name


def dead_before(objects: Objects, base: str) -> datetime:
    """Return the time before which whatever was begun and not ended is dead."""
    by_claim = claimed_at(objects, base)
    return datetime.now(timezone.utc) - ABANDONED if by_claim is None else by_claim


def _size(objects: Objects, upload: Upload) -> int:
    with contextlib.suppress(OSError):  # it has just been ended
        return sum(part.size for part in objects.parts_of(upload.key, upload.id).values())
    return 0
