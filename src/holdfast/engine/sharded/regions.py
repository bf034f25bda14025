"""Regions of one file, read into memory from several threads, and checked there: what is checked is what is loaded."""

from __future__ import annotations

import ctypes
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.errors import DamagedCheckpointError
from holdfast.folders import FolderSource
from holdfast.format.digest import combine, crc32
from holdfast.format.shards import Region
from holdfast.memory import address_of
from holdfast.source import FAR_REQUESTS, FileSource
from holdfast.storage.direct_read import PAGE, PIECE, THREADS, FileReader, in_threads, page_memory, whole_pages


@dataclass(frozen=True)
class Wanted:
    """Bytes of a region, and where they are to go.

    Attributes:
        region: the region.
        begin: the first of the bytes, from the region's beginning.
        size: how many.
        address: where in memory they go.

    """

    region: Region
    begin: int
    size: int
    address: int

    def take(self, at: int, source: int, length: int) -> None:
        """Take from a piece of the region that lies at an address what is wanted of it."""
        first, last = max(at, self.begin), min(at + length, self.begin + self.size)
        if first < last:
            ctypes.memmove(self.address + first - self.begin, source + first - at, last - first)


def read_regions(source: FolderSource, wanted: Sequence[Wanted], *, verify: bool) -> None:
    """Read regions of an open file, each once and all of it, to where they are wanted.

    What comes from a server with another digest is fetched once more: it may have become so on its way.

    Raises:
        DamagedCheckpointError: if a region's digest is another (only with ``verify``), or the file ends early.
            Then the memory may hold part of it.

    """
    if isinstance(source, FileSource):
        with FileReader(source.file.fileno()) as reader:
            wrong = _read(source.path, reader.read_into, wanted, THREADS, verify=verify)
    else:

        def fetch(memory: memoryview, offset: int) -> int:
            return source.read_into(offset, memory[: max(0, source.size - offset)])

        wrong = _read(source.path, fetch, wanted, FAR_REQUESTS, verify=verify)
        if wrong:
            wrong = _read(source.path, fetch, wrong, FAR_REQUESTS, verify=verify)
    if wrong:
        raise DamagedCheckpointError(source.path, wrong[0].region.label, "its CRC-32 does not match")


def _read(
    path: str, read_into: Callable[[memoryview, int], int], wanted: Sequence[Wanted], threads: int, *, verify: bool
) -> list[Wanted]:
    """Read regions; return those whose digests are others."""
    ordered = sorted((item for item in wanted if item.region.length), key=lambda item: item.region.offset)
    ends = [item.region.end for item in ordered]
    digests: list[list[tuple[int, int, int]]] = [[] for _ in ordered]
    own = threading.local()

    def work(piece: tuple[int, int]) -> None:
        start, stop = piece
        if not hasattr(own, "memory"):
            own.memory = memoryview(page_memory(PIECE))
            own.address = address_of(own.memory)
        end = start + read_into(own.memory[: whole_pages(stop - start)], start)
        for number in range(bisect_right(ends, start), len(ordered)):
            region = ordered[number].region
            first, last = max(start, region.offset), min(stop, region.end)
            if first >= last:
                return
            if last > end:
                raise DamagedCheckpointError(path, region.label, f"the file ended after {end} bytes")
            ordered[number].take(first - region.offset, own.address + first - start, last - first)
            if verify:
                digests[number].append((first, last - first, crc32(own.memory[first - start : last - start])))

    in_threads(work, list(_pieces([item.region for item in ordered])), threads)
    pairs = zip(ordered, digests, strict=True)
    return [item for item, parts in pairs if verify and _combined(parts) != item.region.crc32]


def _pieces(regions: Sequence[Region]) -> Iterator[tuple[int, int]]:
    """Divide what the regions cover into pieces that begin at pages and overlap nowhere."""
    start = stop = 0
    for region in regions:
        first = region.offset // PAGE * PAGE
        if first > stop:
            yield from _cut(start, stop)
            start = first
        stop = max(stop, whole_pages(region.end))
    yield from _cut(start, stop)


def _cut(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for at in range(start, stop, PIECE):
        yield at, min(at + PIECE, stop)


def _combined(parts: list[tuple[int, int, int]]) -> int:
    crc = 0
    for _, length, digest in sorted(parts):
        crc = combine(crc, digest, length)
    return crc
