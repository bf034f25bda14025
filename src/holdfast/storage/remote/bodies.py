"""Bytes that are sent in parts: of memory, of a file."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Protocol

from typing_extensions import Self

from holdfast.storage.direct_read import PAGE, FileReader, page_memory, whole_pages


class Source(Protocol):
    """Bytes that stay as they are until the upload is over."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def view(self, offset: int, length: int) -> memoryview:
        """Return some of them: of memory without a copy; of a file read, and good until this thread asks again."""
        ...


class MemorySource:
    """Bytes of memory, where they lie."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Copy nothing."""
        self._view = memoryview(data).cast("B")

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._view)

    def view(self, offset: int, length: int) -> memoryview:
        """Return some of them."""
        return self._view[offset : offset + length]


class FileBytes:
    """The bytes of an open file: those that it has now, whatever its name comes to mean. A context manager.

    Read past the page cache where it does not hold them, so that an upload leaves the cache to the training. Each
    thread that reads has one piece of memory, as large as the largest part it asked for.

    Args:
        descriptor: stays the caller's, and open.

    Raises:
        OSError: by ``view``, if the file has become shorter, or what the system says of a read that failed.

    """

    def __init__(self, descriptor: int) -> None:
        """Read nothing yet."""
        self.size = os.fstat(descriptor).st_size
        self._reader = FileReader(descriptor)
        self._own = threading.local()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened here; no read may be under way."""
        self._reader.__exit__(kind, error, trace)

    def view(self, offset: int, length: int) -> memoryview:
        """Read some of them."""
        length = max(0, min(length, self.size - offset))
        begin = offset // PAGE * PAGE
        needed = whole_pages(offset + length - begin)
        memory: memoryview | None = getattr(self._own, "memory", None)
        if memory is None or len(memory) < needed:
            self._own.memory = memory = memoryview(page_memory(needed))
        read = self._reader.read_into(memory[:needed], begin)
        if begin + read < offset + length:
            msg = f"the file ended after {begin + read} of {self.size} bytes: it was cut while it was sent"
            raise OSError(msg)
        return memory[offset - begin : offset - begin + length]
