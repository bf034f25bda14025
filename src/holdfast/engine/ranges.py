"""The records of a checkpoint, each read by itself and checked, to its place in memory that mirrors the file.

The memory is as large as the file and takes nothing until a record is read into it; what was read goes
back to the system when it is not needed any more. So a state can be had whole, with all its tensors in
their shapes, and cost no more than those of them whose values are there.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from typing_extensions import Self

from holdfast.engine.filling import give_back
from holdfast.engine.foreign import Stored
from holdfast.errors import DamagedCheckpointError
from holdfast.format.digest import crc32
from holdfast.format.reading import Account, Inspection
from holdfast.memory import PAGE, address_of, reserve
from holdfast.source import FAR_PIECE, FAR_REQUESTS, BlobSource, FileSource
from holdfast.storage.direct_read import (
    CACHED_PIECE,
    CACHED_THREADS,
    PIECE,
    THREADS,
    FileReader,
    in_threads,
    whole_pages,
)

_ALIGNED = 16  # bytes of which a tensor's place must be a multiple: those of its largest element


@dataclass(frozen=True)
class Span:
    """Where a record lies: all that is read of it, and in there its own bytes.

    Attributes:
        name: without the archive's.
        first: where its header begins, or its bytes where the header is not checked.
        begin, size: its bytes.
        last: where what belongs to it ends.
        crc32: what they must have.

    """

    name: str
    first: int
    begin: int
    size: int
    last: int
    crc32: int


class Ranges:
    """The records of one file that stays open, by name."""

    def __init__(
        self,
        path: str,
        spans: Iterable[Span],
        read: Callable[[memoryview, int, int, Callable[[int, memoryview], None]], None],
        account: Account | None,
        *,
        far: bool = False,
    ) -> None:
        """Have the addresses for the whole file, and read nothing yet."""
        self.path = path
        self.spans = {span.name: span for span in spans}
        self._read = read
        self._account = account
        self._far = far
        self._places = {} if account is None else {item.record.name: at for at, item in enumerate(account.placed)}
        self._order = sorted((span for span in self.spans.values() if span.size), key=lambda span: span.begin)
        self._begins = [span.begin for span in self._order]
        self.image = reserve(whole_pages(max((span.last for span in self.spans.values()), default=0)))
        self._view = memoryview(self.image)
        self._address = address_of(self._view)

    @classmethod
    def of_account(cls, source: FileSource | BlobSource, account: Account, opened: ExitStack) -> Self:
        """Return those of a file that has a manifest; the framing of each record is checked with it."""
        spans = [
            Span(item.record.name, item.header_offset, item.data_offset, item.record.size, item.end_offset, 0)
            for item in account.placed
        ]
        if isinstance(source, BlobSource):
            return cls(source.path, spans, _Remote(source).read, account, far=True)
        return cls(source.path, spans, _local(source.path, source.file, opened), account)

    @classmethod
    def of_zip(cls, source: FileSource, records: Iterable[Stored], opened: ExitStack) -> Self:
        """Return those of a zip that has no manifest; each is checked against its CRC-32 in the directory."""
        spans = [
            Span(item.name, item.begin, item.begin, item.size, item.begin + item.size, item.crc32) for item in records
        ]
        return cls(source.path, spans, _local(source.path, source.file, opened), None)

    @property
    def aligned(self) -> bool:
        """Whether every record begins where a tensor may."""
        return all(span.begin % _ALIGNED == 0 for span in self._order)

    def memory(self, name: str) -> memoryview:
        """Return a record's place; its bytes are there after ``fill``, and zeros before it and after ``drop``."""
        span = self.spans[name]
        return self._view[span.begin : span.begin + span.size]

    def at(self, address: int) -> Span | None:
        """Return the record in whose place an address lies."""
        offset = address - self._address
        place = bisect_right(self._begins, offset) - 1
        if place < 0 or offset >= self._order[place].begin + self._order[place].size:
            return None
        return self._order[place]

    def fill(self, name: str) -> None:
        """Read a record to its place, and check it.

        Raises:
            DamagedCheckpointError: naming it, if it is not as it was written.
            OSError: what the system says of a read that failed.

        """
        try:
            self._fill(self.spans[name])
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, os.strerror(error.errno), self.path) from error

    def _fill(self, span: Span) -> None:
        name = span.name
        if self._account is not None:
            try:
                self._fill_checked(span, self._account)
            except DamagedCheckpointError:
                if not self._far:
                    raise
                self._fill_checked(span, self._account)  # a byte that flipped on its way is no damage at rest
            return
        self._read(self._view, span.first, span.last, _nothing)
        found = crc32(self.memory(name))
        if found != span.crc32:
            problem = f"its CRC-32 is {found:08x} but {span.crc32:08x} was saved"
            raise DamagedCheckpointError(self.path, f"record {name}", problem)

    def _fill_checked(self, span: Span, account: Account) -> None:
        inspection = Inspection(self.path, account)
        self._read(self._view, span.first, span.last, inspection.take)
        inspection.check(self._places[span.name], data=True)

    def drop(self, name: str) -> None:
        """Give back the memory of a record, but for the pages that it shares with its neighbours."""
        span = self.spans[name]
        give_back(self.image, span.begin, span.begin + span.size)

    def digest(self, name: str) -> tuple[int, int]:
        """Return the bytes of a record and the CRC-32 that they must have."""
        span = self.spans[name]
        if self._account is not None:
            return span.size, self._account.placed[self._places[name]].record.crc32
        return span.size, span.crc32


def _nothing(offset: int, data: memoryview) -> None:
    """Look at nothing."""


def _local(path: str, file: BinaryIO, opened: ExitStack) -> Callable[..., None]:
    reader = opened.enter_context(FileReader(file.fileno()))

    def read(image: memoryview, first: int, last: int, take: Callable[[int, memoryview], None]) -> None:
        start = first // PAGE * PAGE
        cached = reader.has(start, last - start)
        piece = CACHED_PIECE if cached else PIECE

        def work(at: int) -> None:
            stop = min(at + piece, last)
            end = at + reader.read_into(image[at : at + whole_pages(stop - at)], at)
            if end < stop:
                raise DamagedCheckpointError(path, "the file", f"it ended after {end} bytes")
            begin = max(at, first)
            take(begin, image[begin:stop])

        in_threads(work, range(start, last, piece), CACHED_THREADS if cached else THREADS)

    return read


@dataclass(frozen=True)
class _Remote:
    """Reads ranges of a blob."""

    source: BlobSource

    def read(self, image: memoryview, first: int, last: int, take: Callable[[int, memoryview], None]) -> None:
        def work(at: int) -> None:
            stop = min(at + FAR_PIECE, last)
            end = at + self.source.read_into(at, image[at:stop])
            if end < stop:
                raise DamagedCheckpointError(self.source.path, "the transfer", f"it ended after {end} bytes")
            take(at, image[at:stop])

        in_threads(work, range(first, last, FAR_PIECE), FAR_REQUESTS)
