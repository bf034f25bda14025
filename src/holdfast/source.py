"""The bytes of one blob of a store, or of one open file, for the readers of the format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from holdfast.storage import Store
from holdfast.storage.direct_read import pour


@dataclass(frozen=True)
class BlobSource:
    """One blob of a store, read by ranges."""

    store: Store
    name: str
    size: int

    @property
    def path(self) -> str:
        """The blob's path or URL."""
        return self.store.path(self.name)

    def read(self, offset: int, length: int) -> bytes:
        """Read one range."""
        return self.store.read(self.name, offset, length)


@dataclass(frozen=True)
class FileSource:
    """An open file: what is verified and what is loaded are the same bytes, whatever its name does."""

    path: str
    file: BinaryIO

    @property
    def size(self) -> int:
        """The file's bytes now."""
        return os.fstat(self.file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read one range without moving the file's position."""
        return os.pread(self.file.fileno(), length, offset)

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over all bytes before ``end`` in pieces, in any order, from several threads."""
        pour(self.file.fileno(), end, take)


@dataclass(frozen=True)
class TellingSource(FileSource):
    """An open file that tells how many bytes of it have been handed over."""

    progress: Callable[[int], None]

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over all bytes before ``end``, and tell of each piece when it has been taken."""

        def tell(offset: int, data: memoryview) -> None:
            take(offset, data)
            self.progress(len(data))

        super().pour(end, tell)
