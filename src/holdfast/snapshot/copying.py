"""From tensors of the host to their places in the image, with the digests on the way.

A digest costs a tenth of the copy while the bytes are in the processor's cache, and half of it later on,
from memory. While training stands still only a part is taken on the way, so that it stands still no longer
than for the copy; the rest is taken by the thread that writes.
"""

from __future__ import annotations

import collections
import ctypes
import os
import threading
from collections.abc import Iterable
from typing import NamedTuple

import torch

from holdfast.format.digest import combine, crc32
from holdfast.snapshot.progress import Progress
from holdfast.threads import Threads

_PIECE = 1 << 18  # bytes that stay in a core's cache from the copy to the digest
_SHARE = 1 << 22  # bytes that a thread takes on at a time
_MANY = 1 << 23  # bytes from which more threads than one are worth their start
_THREADS = min(4, os.cpu_count() or 1)  # memory has no more to give than a few cores can take


class Copy(NamedTuple):
    """One storage and where it belongs in the image.

    Attributes:
        place: its place among the state's storages.
        source: the storage.
        offset: where its bytes belong in the image.
        size: how many they are.

    """

    place: int
    source: torch.UntypedStorage
    offset: int
    size: int

    @property
    def on_host(self) -> bool:
        """Tell whether the storage lies in the host's memory."""
        return self.source.device.type == "cpu"

    def matches(self, base: int) -> bool:
        """Tell whether the image at this address still holds what the storage holds."""
        return not int(_memcmp(base + self.offset, self.source.data_ptr(), self.size))


class Target(NamedTuple):
    """The image's memory, and its address."""

    image: memoryview
    base: int


class _Share(NamedTuple):
    """A part of a large copy."""

    place: int
    source: int
    offset: int
    size: int
    digest: bool


def copy_all(
    copies: Iterable[Copy],
    target: Target,
    progress: Progress,
    *,
    threads: int = _THREADS,
    digested: float = 1.0,
) -> None:
    """Copy storages of the host into the image; tell of each when it is there.

    ``digested`` is the part of the bytes whose digests are taken on the way.
    """
    image, base = target
    shares: list[_Share] = []
    seen, taken = 0, 0
    for place, source, offset, size in copies:
        address = source.data_ptr()
        if size <= _PIECE:
            ctypes.memmove(base + offset, address, size)
            progress.arrived(place, crc32(image[offset : offset + size]))
            continue
        seen += size
        digest = taken + size <= digested * seen
        taken += size if digest else 0
        shares += [
            _Share(place, address + at, offset + at, min(_SHARE, size - at), digest) for at in range(0, size, _SHARE)
        ]
    _copy_shares(shares, target, progress, threads)


def _copy_shares(shares: list[_Share], target: Target, progress: Progress, threads: int) -> None:
    """Copy, on several threads if it is much."""
    digests = [0] * len(shares)
    left = collections.Counter(share.place for share in shares)
    turn, taking = iter(range(len(shares))), threading.Lock()

    def work() -> None:
        while True:
            with taking:
                number = next(turn, None)
            if number is None:
                return
            share = shares[number]
            digests[number] = _copy(share, target)
            with taking:
                left[share.place] -= 1
                complete = not left[share.place]
            if complete:
                progress.arrived(share.place, _combined(shares, digests, number) if share.digest else None)

    helpers = Threads(threads - 1, "holdfast-copy", apart=True)
    many = sum(share.size for share in shares) >= _MANY
    works = [helpers.run(work) for _ in range(threads - 1 if many else 0)]
    try:
        work()
        for item in works:
            item.join()
    finally:
        helpers.stop()


def _copy(share: _Share, target: Target) -> int:
    """Copy, without holding the GIL; return the digest, if it is to be taken."""
    image, base = target
    if not share.digest:
        ctypes.memmove(base + share.offset, share.source, share.size)
        return 0
    crc = 0
    for at in range(0, share.size, _PIECE):
        begin, length = share.offset + at, min(_PIECE, share.size - at)
        ctypes.memmove(base + begin, share.source + at, length)
        crc = crc32(image[begin : begin + length], crc)
    return crc


def _combined(shares: list[_Share], digests: list[int], last: int) -> int:
    """Return the digest of the storage that a share belongs to, from those of all its shares."""
    place = shares[last].place
    first = last
    while first and shares[first - 1].place == place:
        first -= 1
    crc = digests[first]
    for number in range(first + 1, len(shares)):
        if shares[number].place != place:
            break
        crc = combine(crc, digests[number], shares[number].size)
    return crc


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
