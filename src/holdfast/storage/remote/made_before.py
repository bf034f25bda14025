"""Whether an upload whose end was never answered has become the object that is there: by its bytes, part by part.

The etag tells it where the server makes that of the parts' own, as S3 does. Elsewhere the object is read: rare, and
better than to call a checkpoint lost that is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping

from holdfast.storage.remote.objects import Head, Objects

_MD5 = re.compile(r"[0-9a-f]{32}")
_PIECE = 1 << 22  # bytes that are read at a time


class LostAnswerError(ConnectionError):
    """The end of an upload was asked for, its answer was lost, and by now there is no such upload."""


def made_of(objects: Objects, key: str, etags: Mapping[int, str], sizes: Mapping[int, int]) -> Head | None:
    """Return what a server says of an object if it is made of these parts, whose etags are MD5; else None."""
    with contextlib.suppress(OSError):
        head = objects.head(key)
        if head.size == sum(sizes.values()) and etags.keys() == sizes.keys():
            at = 0
            for number in sorted(sizes):
                if not _MD5.fullmatch(etags[number]) or _md5(objects, key, at, sizes[number]) != etags[number]:
                    return None
                at += sizes[number]
            return head
    return None


def _md5(objects: Objects, key: str, start: int, size: int) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for at in range(start, start + size, _PIECE):
        digest.update(objects.get(key, at, min(at + _PIECE, start + size)))
    return digest.hexdigest()
