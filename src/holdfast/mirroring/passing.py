"""The bytes of a checkpoint on their way: checked as they pass, from whatever thread, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from holdfast.errors import DamagedCheckpointError, LoadError, printable
from holdfast.format import reading
from holdfast.format.digest import crc32
from holdfast.mirroring.reading_ahead import blocks as blocks_ahead
from holdfast.source import BlobSource, FileSource, TailSource
from holdfast.storage import Store, open_regular

BLOCK = 1 << 22  # bytes read at a time where nobody says how many


class Check(Protocol):
    """Knows what each byte must be."""

    def take(self, offset: int, data: memoryview) -> None:
        """Look at bytes, once at each."""
        ...

    def finish(self) -> None:
        """Raise a ``DamagedCheckpointError`` if they are not all as they were saved."""
        ...


Bytes = BlobSource | FileSource


@dataclass
class _Limited:
    """The check of a file: what lies behind its records has been looked at before."""

    inspection: reading.Inspection
    end: int

    def take(self, offset: int, data: memoryview) -> None:
        if offset < self.end:
            self.inspection.take(offset, data[: self.end - offset])

    def finish(self) -> None:
        self.inspection.finish()


def check_of(source: Bytes) -> tuple[reading.Account | None, Callable[[], Check] | None]:
    """Return what a file says of itself, and what makes checks of its bytes; None twice if it says nothing.

    Raises:
        DamagedCheckpointError: if it is a checkpoint that is cut off or overwritten.
        NewerFormatError: if a later holdfast wrote it.

    """
    account = reading.read_account(source) if source.size else None
    if account is None:
        return None, None
    known = account
    return account, lambda: _Limited(reading.Inspection(source.path, known), known.end)


class Passing:
    """The bytes of a blob, each of which is checked when somebody reads it for the first time.

    A source of an upload. Where a piece is asked for again it must be the same.

    Attributes:
        path: the path or URL of the blob.
        size: how many bytes there are.

    """

    def __init__(
        self,
        source: Bytes,
        check: Callable[[], Check] | None,
        read: Callable[[int, int], bytes | memoryview] | None = None,
    ) -> None:
        """Nothing has passed yet. ``read`` is another way to the same bytes."""
        self.path = source.path
        self._source = source if read is None else None
        self._bytes = read or source.read
        self._make = check
        self._check = check() if check is not None else None
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[int, int]] = {}
        self.size = source.size

    def view(self, offset: int, length: int) -> memoryview:
        """Read a piece.

        Raises:
            DamagedCheckpointError: if the blob ends within it, or it is another than before.
            LoadError: if it cannot be read.

        """
        length = min(length, self.size - offset)
        with self._load_errors():
            data = memoryview(self._bytes(offset, length))
        if len(data) != length:
            raise self._ended(offset + len(data))
        self._take(offset, data)
        return data

    @contextmanager
    def _load_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"{printable(self.path)} cannot be read: {error.strerror or error}"
            raise LoadError(msg) from error

    def _ended(self, at: int) -> DamagedCheckpointError:
        return DamagedCheckpointError(self.path, "the file", f"it ended after {at} of {self.size} bytes")

    def blocks(self, start: int = 0) -> Iterator[memoryview]:
        """Yield all bytes from an offset on; of a blob that is far away several ranges are under way at a time."""
        if self._source is None or isinstance(self._source, FileSource) or self._source.store.is_local:
            for offset in range(start, self.size, BLOCK):
                yield self.view(offset, BLOCK)
            return
        offset, ahead = start, blocks_ahead(self._source, start, self.size)
        while offset < self.size:
            with self._load_errors():
                data = memoryview(next(ahead, b""))
            if not data:
                raise self._ended(offset)
            self._take(offset, data)
            yield data
            offset += len(data)

    def earlier(self, offset: int, data: bytes) -> None:
        """Check bytes that an earlier try has brought to the target."""
        self._take(offset, memoryview(data))

    def crc_of(self, offset: int) -> int | None:
        """Return the CRC-32 of the piece that began there; None if none has passed."""
        with self._lock:
            seen = self._seen.get(offset)
        return None if seen is None else seen[1]

    def finish(self) -> None:
        """See that all bytes are as they were saved. Those that have not come by are read now.

        Raises:
            DamagedCheckpointError: if they are not.
            LoadError: if they cannot be read.

        """
        end = 0
        for offset, (length, _) in sorted(self._seen.items()):
            if offset < end:  # pieces of another cut: each byte counts once
                self.restart()
                self._read(0, self.size)
                break
            self._read(end, offset)
            end = offset + length
        else:
            self._read(end, self.size)
        if self._check is not None:
            self._check.finish()

    def restart(self) -> None:
        """Begin again: nothing has passed."""
        self._seen = {}
        self._check = self._make() if self._make is not None else None

    def _read(self, start: int, end: int) -> None:
        for offset in range(start, end, BLOCK):
            self.view(offset, min(BLOCK, end - offset))

    def _take(self, offset: int, data: memoryview) -> None:
        crc = crc32(data)
        with self._lock:
            known = self._seen.get(offset)
            self._seen[offset] = (len(data), crc)
        if known is None:
            if self._check is not None:
                self._check.take(offset, data)
        elif known != (len(data), crc):
            problem = f"the bytes from {offset} on are not those that stood there a moment ago"
            raise DamagedCheckpointError(self.path, "the file", problem)


@contextmanager
def opened(store: Store, name: str) -> Iterator[Bytes]:
    """Open a blob: of a local file all reads are then of the same one, whatever its name comes to mean.

    Raises:
        FileNotFoundError: if it is not there.

    """
    if not store.is_local:
        yield TailSource(store, name, store.size(name))
        return
    with open_regular(store.path(name)) as file:
        yield FileSource(store.path(name), file)


@contextmanager
def passing_of(source: Bytes, check: Callable[[], Check] | None, *, far: bool) -> Iterator[Passing]:
    """Return the bytes of a blob for a target that is ``far``, or near.

    A file is read past the page cache where it does not lie in it, so that it stays the training's; but not for a
    directory, whose writer wants memory that stays as it is.
    """
    if not far or not isinstance(source, FileSource):
        yield Passing(source, check)
        return
    from holdfast.storage.remote.bodies import FileBytes  # noqa: PLC0415 - with fsspec: not for two directories

    with FileBytes(source.file.fileno()) as file:
        yield Passing(source, check, file.view)
