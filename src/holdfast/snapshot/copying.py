"""From tensors of the host to their places in the image, with the digests on the way.

A copy of milliseconds is made by one thread, which digests each piece right after it is copied, while it is in
the processor's cache: later on, from memory, that would cost half of the copy, on a processor that training
needs. A large copy is made by several threads, and there the digest would make training stand still by a tenth
longer. The thread that writes takes it, which for so much waits for the disk most of its time.
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
_MANY = 1 << 28  # bytes from which more threads are worth their start: right after a step, torch's own still spin
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


class _Way(NamedTuple):
    """How to copy.

    Attributes:
        threads: how many do it.
        piece: bytes of one call.
        digest: whether to take the digests on the way.

    """

    threads: int
    piece: int
    digest: bool


_ALONE = _Way(1, _PIECE, digest=True)
_TOGETHER = _Way(_THREADS, _PIECE, digest=False)
_BESIDE = _Way(1, _SHARE, digest=True)


def copy_all(
    copies: Iterable[Copy],
    target: Target,
    progress: Progress,
    *,
    beside: bool = False,
) -> None:
    """Copy storages of the host into the image; tell of each when it is there, with its digest if that was taken.

    ``beside`` the training: on one thread, as training needs the others, and in few calls, as it waits for this
    thread to let go of the GIL after each.
    """
    image, base = target
    shares: list[_Share] = []
    small: dict[int, int] = {}
    for place, source, offset, size in copies:
        address = source.data_ptr()
        if size <= _PIECE:
            ctypes.memmove(base + offset, address, size)
            small[place] = crc32(image[offset : offset + size])
            continue
        shares += [_Share(place, address + at, offset + at, min(_SHARE, size - at)) for at in range(0, size, _SHARE)]
    progress.all_arrived(small)
    many = sum(share.size for share in shares) >= _MANY
    _copy_shares(shares, target, progress, _BESIDE if beside else _TOGETHER if many else _ALONE)


def _copy_shares(shares: list[_Share], target: Target, progress: Progress, way: _Way) -> None:
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
            digests[number] = _copy(share, target, way)
            with taking:
                left[share.place] -= 1
                complete = not left[share.place]
            if complete:
                progress.arrived(share.place, _combined(shares, digests, number) if way.digest else None)

    helpers = Threads(way.threads - 1, "holdfast-copy", apart=True)
    works = [helpers.run(work) for _ in range(way.threads - 1)]
    try:
        work()
        for item in works:
            item.join()
    finally:
        helpers.stop()


def _copy(share: _Share, target: Target, way: _Way) -> int:
    """Copy, without holding the GIL; return the digest of what was copied, if it is to be taken.

    It is taken of the copy, not of the source: of what will be written, whatever happens to the source meanwhile.
    """
    image, base = target
    crc = 0
    for at in range(0, share.size, way.piece):
        begin, length = share.offset + at, min(way.piece, share.size - at)
        ctypes.memmove(base + begin, share.source + at, length)
        if way.digest:
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
