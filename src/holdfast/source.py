"""The bytes of one blob of a store, or of one open file, for the readers of the format."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, BinaryIO, TypeVar

from holdfast.errors import DamagedCheckpointError
from holdfast.storage import Store

T = TypeVar("T")
R = TypeVar("R")

_TAIL = 1 << 14  # bytes at the end of a file that hold directory and facts, unless it has hundreds of tensors
_FAR_TAIL = 1 << 16  # the same where each further read is a trip over the network
_FAR_WHOLE = 1 << 22  # bytes of a blob that comes as a whole, at once, where all of it is wanted
FAR_PIECE = 1 << 23  # bytes of one request of many: long enough for its round trip not to count
FAR_REQUESTS = 8  # of those under way at a time
_REQUESTS = 16  # under way at a time, where each is a trip over the network


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

    def read_into(self, offset: int, view: memoryview) -> int:
        """Read one range straight into memory; return the bytes read: fewer only at the end."""
        return self.store.read_into(self.name, offset, view)

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over all bytes before ``end`` in pieces, in any order, from several threads."""
        self._pour(0, end, take)

    def pour_again(self, begin: int, end: int, take: Callable[[int, memoryview], None]) -> bool:
        """Hand over a range once more; return whether it was fetched anew, so that it may have come otherwise."""
        self._pour(begin, end, take)
        return True

    def _pour(self, begin: int, end: int, take: Callable[[int, memoryview], None]) -> None:
        from holdfast.storage.direct_read import in_threads  # noqa: PLC0415 - not for those who only look

        own = threading.local()

        def work(at: int) -> None:
            if not hasattr(own, "memory"):
                own.memory = memoryview(bytearray(min(FAR_PIECE, end - begin)))
            view = own.memory[: min(FAR_PIECE, end - at)]
            take(at, view[: self.read_into(at, view)])

        in_threads(work, range(begin, end, FAR_PIECE), FAR_REQUESTS)


class _BlobFile(io.RawIOBase):
    def __init__(self, source: BlobSource) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go somewhere else."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read on."""
        view = memoryview(buffer).cast("B")
        data = self._source.read(self._at, min(len(view), max(0, self._source.size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def as_file(source: BlobSource) -> BinaryIO:
    """Return a blob as a file that is read from anywhere, for those who know only files."""
    return io.BufferedReader(_BlobFile(source))


@dataclass(frozen=True)
class TailSource(BlobSource):
    """One blob of a store. Its end, where the manifest stands, comes with one read: one request for most files.

    That of a remote one with a ``stamp`` comes from this machine where it has been read before.
    """

    stamp: str = ""

    @cached_property
    def _start(self) -> int:
        return max(0, self.size - (_TAIL if self.store.is_local else _FAR_TAIL))

    @cached_property
    def _tail(self) -> bytes:
        length = self.size - self._start
        if not self.stamp:
            return self.store.read(self.name, self._start, length)
        from holdfast.tail_cache import kept  # noqa: PLC0415 - not for those who look into a folder

        return kept(self.path, self.size, self.stamp, lambda: self._whole_tail(length))

    def _whole_tail(self, length: int) -> bytes:
        data = self.store.read(self.name, self._start, length)
        if len(data) != length:
            msg = f"{self.path} has {self._start + len(data)} bytes, and was listed with {self.size}"
            raise OSError(msg)
        return data

    def anew(self) -> TailSource:
        """Return the same, of which nothing was read before."""
        if self.stamp:
            from holdfast.tail_cache import forget  # noqa: PLC0415 - not for those who look into a folder

            forget(self.path, self.size, self.stamp)
        return replace(self)

    def is_like(self, other: TailSource) -> bool:
        """Tell whether both have read the same."""
        return self._tail == other._tail

    def read(self, offset: int, length: int) -> bytes:
        """Read one range."""
        if offset < self._start:
            return super().read(offset, length)
        return self._tail[offset - self._start : offset - self._start + max(0, length)]


def read_end(source: TailSource, read: Callable[[TailSource], T | None]) -> T | None:
    """Read what stands at the end of a blob; what comes from afar and is not as it should be is fetched once more.

    It may have come wrong, and what was kept of it on this machine would be wrong from then on: nothing that was
    kept is called damaged. That there is nothing is believed if it has come twice, the same.

    Raises:
        DamagedCheckpointError: as ``read`` does.

    """
    if source.store.is_local:
        return read(source)
    try:
        found = read(source)
    except DamagedCheckpointError:
        return read(source.anew())
    if found is None and source.stamp:
        second = replace(source, stamp=f"{source.stamp} again")
        found = read(second)
        if found is None and not second.is_like(source):
            return read(replace(source, stamp=""))
    return found


@dataclass(frozen=True)
class FarSource(TailSource):
    """One blob behind a URL that is to be read as a whole: a small one by one request, others by their end first.

    What has come is handed over once. Who asks again for the same wants it fetched again.
    """

    progress: Callable[[int], None] | None = None
    _given: list[bool] = field(default_factory=list, repr=False, compare=False)

    @cached_property
    def _start(self) -> int:
        return 0 if self.size <= _FAR_WHOLE else self.size - _FAR_TAIL

    def read_into(self, offset: int, view: memoryview) -> int:
        """Read one range straight into memory; return the bytes read: fewer only at the end."""
        if self._start or self._given:
            return super().read_into(offset, view)
        self._given.append(True)
        data = self._tail[offset : offset + len(view)]
        view[: len(data)] = data
        return len(data)

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over all bytes before ``end``, and tell of each piece when it has been taken."""
        super().pour(end, take if self.progress is None else telling(take, self.progress))


def each(near: bool, items: Iterable[T], look: Callable[[T], R]) -> Iterable[R]:  # noqa: FBT001 - read at the call
    """Return what ``look`` says of each item, in order; where the items are not near, several are asked at a time."""
    if near:
        return map(look, items)
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not for those who look into a folder

    wanted = list(items)
    try:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            waiting = [pool.submit(look, item) for item in wanted]
            return [one.result() for one in waiting]
    except RuntimeError:  # the interpreter is about to end and starts no threads: one after the other, then
        return [look(item) for item in wanted]


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
        from holdfast.storage.direct_read import pour  # noqa: PLC0415 - with ctypes: not for those who only look

        pour(self.file.fileno(), end, take)

    def pour_again(self, begin: int, end: int, take: Callable[[int, memoryview], None]) -> bool:
        """Return False: what was read of a file is what it has."""
        del begin, end, take
        return False


def telling(
    take: Callable[[int, memoryview], None], progress: Callable[[int], None]
) -> Callable[[int, memoryview], None]:
    """Return what takes pieces, and tells how many bytes each had."""

    def tell(offset: int, data: memoryview) -> None:
        take(offset, data)
        progress(len(data))

    return tell


@dataclass(frozen=True)
class TellingSource(FileSource):
    """An open file that tells how many bytes of it have been handed over."""

    progress: Callable[[int], None]

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over all bytes before ``end``, and tell of each piece when it has been taken."""
        super().pour(end, telling(take, self.progress))
