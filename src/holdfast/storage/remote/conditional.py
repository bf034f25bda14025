"""Puts with a condition, whose answer may be lost: what did succeed is recognised by its bytes.

The bytes have to be ours alone, by a token in them: then an object that has them is the one that we have put.
"""

from __future__ import annotations

from holdfast.storage.remote.objects import Head, Objects

_MOST = 1 << 16  # bytes of an object that is compared


def create(objects: Objects, key: str, data: bytes) -> Head | None:
    """Make an object that is not there; None if there is one, of somebody else.

    Where the server keeps such conditions.
    """
    try:
        return objects.put(key, data, absent=True)
    except FileExistsError:
        return _ours(objects, key, data)


def replace(objects: Objects, key: str, data: bytes, etag: str) -> Head | None:
    """Put an object in the place of the one of this etag; None if it is another by now, or gone."""
    try:
        return objects.put(key, data, match=etag)
    except (FileExistsError, FileNotFoundError):
        return _ours(objects, key, data)


def read(objects: Objects, key: str) -> bytes | None:
    """Return the bytes of a small object; None if it is not there."""
    try:
        return objects.get(key, 0, _MOST)
    except FileNotFoundError:
        return None


def watch(objects: Objects, key: str) -> tuple[Head, bytes] | None:
    """Return what an object is, and its bytes; the etag is not newer than the bytes. None if it is not there."""
    try:
        head = objects.head(key)
    except FileNotFoundError:
        return None
    data = read(objects, key)
    return None if data is None else (head, data)


def _ours(objects: Objects, key: str, data: bytes) -> Head | None:
    """Look whether what is there is what was sent: an earlier try may have succeeded, and its answer been lost."""
    seen = watch(objects, key)
    return seen[0] if seen is not None and seen[1] == data else None
