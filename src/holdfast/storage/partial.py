"""A large blob that is written in several tries: what a try that was killed has written is taken up by the next.

The temporary file has a name that the next try finds again. Nothing of it is trusted: its bytes are handed back to
whoever knows what they must be, and only then does it become the blob.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from holdfast.storage.blocks import BlockWriter
from holdfast.storage.contract import HIDDEN, Chunks, Store
from holdfast.storage.durable import commit_temporary, make_folders
from holdfast.storage.listing import TEMPORARY_SUFFIX
from holdfast.storage.locks import lock_for_life, unlock

LARGE = 1 << 26  # bytes from which it is worth while
_BLOCK = 1 << 22  # bytes that are read back at a time; what an earlier try has written of the last one is written anew
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # where what is left would be in the way
_PART = re.compile(re.escape(HIDDEN) + "[0-9a-f]{32}" + re.escape(TEMPORARY_SUFFIX))  # by the tokens of those who copy


class Feed(Protocol):
    """The bytes of a blob, as somebody has them who knows what they must be."""

    @property
    def size(self) -> int:
        """How many there are in all."""
        ...

    def earlier(self, offset: int, data: bytes) -> None:
        """Take note of bytes that an earlier try has written."""
        ...

    def rest(self, offset: int) -> Chunks:
        """Return the bytes from an offset to the end."""
        ...


def put_by_parts(store: Store, name: str, token: str, feed: Feed, gate: Callable[[], None]) -> int:
    """Write a blob as ``Store.put`` does, and take up what an earlier try has left of it.

    Args:
        store: where to; only of a local one anything is taken up.
        name: of the blob.
        token: names these bytes of this blob: 32 hexadecimal digits.
        feed: has the bytes.
        gate: called when all bytes are written and none is committed; if it raises, nothing is, and nothing is left.

    Raises:
        BlockingIOError: if another process is about to write the same.
        OSError: as ``Store.put``; what was written is left for the next try, unless the disk is full.

    """
    if not store.is_local or feed.size < LARGE:
        return store.put(name, feed.rest(0), gate=gate, size=feed.size)
    target = store.path(name)
    folder = os.path.dirname(target)
    make_folders(folder)
    temporary = os.path.join(folder, f"{HIDDEN}{token}{TEMPORARY_SUFFIX}")
    with _taken_up(temporary, target) as descriptor:
        have = min(os.fstat(descriptor).st_size, feed.size) // _BLOCK * _BLOCK
        for offset in range(0, have, _BLOCK):
            feed.earlier(offset, os.pread(descriptor, _BLOCK, offset))
        os.ftruncate(descriptor, have)
        try:
            with BlockWriter(descriptor, temporary, have) as writer:
                try:
                    for chunk in feed.rest(have):
                        writer.feed(chunk)
                finally:  # what has come, before the rest failed to, is there for the next try
                    written = writer.finish()
        except OSError as error:
            if error.errno in _FULL:
                os.unlink(temporary)
            raise
        try:
            gate()
        except BaseException:
            os.unlink(temporary)
            raise
        commit_temporary(descriptor, temporary, target, written)
    return written


@contextmanager
def kept_from_sweeps(store: Store, depth: int) -> Iterator[None]:
    """Hold what unfinished copies have left at most ``depth`` folders down, so that they can be gone on with."""
    with ExitStack() as held:
        for name in store.leftovers(depth):
            if _PART.fullmatch(name.rpartition("/")[2]):
                held.enter_context(store.hold(name))
        yield


@contextmanager
def _taken_up(temporary: str, target: str) -> Iterator[int]:
    """Open and lock the temporary file; make it if there is none."""
    descriptor = os.open(temporary, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(errno.EEXIST, "something else stands where the part of an earlier try would be", temporary)
        if not lock_for_life(descriptor):
            raise BlockingIOError(errno.EAGAIN, "another process is writing it", target)
        yield descriptor
    finally:
        unlock(descriptor)
        os.close(descriptor)
