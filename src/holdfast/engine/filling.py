"""The records of a checkpoint, read straight into the memory that its tensors will keep, and checked there.

What is verified and what is loaded are therefore the same bytes: there is no second reading during
which the file could change. The memory is one image of the file, so that it comes in huge pages (the
first touch of small ones takes longer than the reading); large tensors are parts of it and each gives
its pages back when it goes, small ones are copied out. What goes over living tensors passes through a
small buffer, and is checked there.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch

from holdfast.engine.into import Homes, Into, homes_of, scatter
from holdfast.errors import DamagedCheckpointError
from holdfast.format.layout import Placed
from holdfast.format.reading import Account, Inspection
from holdfast.memory import address_of
from holdfast.source import FAR_REQUESTS, BlobSource, FileSource
from holdfast.storage.direct_read import (
    CACHED_PIECE,
    CACHED_THREADS,
    PAGE,
    PIECE,
    THREADS,
    FileReader,
    in_threads,
    page_memory,
    pour,
    whole_pages,
)

TENSORS = "data/"  # where the names of the records of tensors begin; the others hold plain bytes

_LARGE = 1 << 16  # bytes of a record that stays in the image: the pages it shares with others are kept for it
_DROP = getattr(mmap, "MADV_DONTNEED", None)


@dataclass(frozen=True)
class Contents:
    """The records of a file, by name: those of tensors as flat tensors of ``uint8``, the others as bytes.

    Attributes:
        tensors: those of tensors.
        others: the others.
        homes: those whose memory is that of living tensors.

    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)
    homes: Homes = field(default_factory=Homes)


def fill(source: FileSource | BlobSource, account: Account, *, verify: bool, into: Into | None = None) -> Contents:
    """Read all records of a file into memory of its size, but for those that go over living tensors.

    Args:
        source: the open file, or the blob.
        account: what it says of itself.
        verify: whether to check every byte.
        into: tensors that may be written over.

    Raises:
        DamagedCheckpointError: if a byte is not as it was written (only with ``verify``), or if the
            file ends early.
        OSError: what the system says of a read that failed, or of memory that it has not.

    """
    path = source.path
    inspection = Inspection(path, account) if verify else None
    own = threading.local()

    def read(memory: memoryview, start: int, stop: int) -> None:
        end = start + reader.read_into(memory[: reader.length(stop - start)], start)
        if end < stop:
            raise DamagedCheckpointError(path, "the file", f"it ended after {end} bytes")
        if inspection is not None:
            inspection.take(start, memory[: stop - start])

    def work(start: int, last: int = account.end) -> None:
        stop = min(start + piece, last)
        parts = list(homes.among(start, stop))
        if all(home is None for *_, home in parts):
            read(view[start:], start, stop)
            return
        if not hasattr(own, "memory"):
            own.memory = memoryview(page_memory(piece))
        read(own.memory, start, stop)
        scatter(parts, start, address_of(own.memory), address)

    def again(begin: int, end: int) -> bool:
        in_threads(partial(work, last=end), reader.anew(begin, end), reader.threads)
        return reader.far

    with _reader(source) as reader:
        cached = reader.has(0, account.end)
        homes = homes_of(account, into) if _may_touch(into, source, account, cached=cached) else Homes()
        elsewhere = [(begin, end) for begin, end, home in homes.among(0, account.end) if home is None]
        image = page_memory(account.end, elsewhere)
        view, address = memoryview(image), address_of(memoryview(image))
        piece = CACHED_PIECE if cached and homes.storages else PIECE
        if into is not None and homes.storages:
            into.touched = True
        in_threads(work, range(0, account.end, piece), CACHED_THREADS if cached else reader.threads)
        if inspection is not None:
            inspection.look_again(again)
            inspection.finish()
    return _contents(image, account, homes)


class _Near(FileReader):
    """Reads an open file."""

    far = False
    threads = THREADS

    def length(self, size: int) -> int:
        """Return how much memory a read of so many bytes wants: whole pages."""
        return whole_pages(size)

    def anew(self, begin: int, end: int) -> range:
        """Return the pieces of a range in which it is to be read once more: none, it would be the same."""
        return range(begin, begin, end)


class _Far:
    """Reads a blob, each piece by one request, straight to where it belongs."""

    far = True
    threads = FAR_REQUESTS

    def __init__(self, source: BlobSource) -> None:
        self._source = source

    def length(self, size: int) -> int:
        """Return how much memory a read wants: what is read, for what lies beside it has been checked."""
        return size

    def anew(self, begin: int, end: int) -> range:
        """Return the pieces of a range in which it is to be read once more."""
        return range(begin, end, PIECE)

    def has(self, offset: int, length: int) -> bool:
        """Return False: nothing is cached."""
        del offset, length
        return False

    def read_into(self, memory: memoryview, offset: int) -> int:
        """Read; fewer bytes only at the end."""
        return self._source.read_into(offset, memory)


def _reader(source: FileSource | BlobSource) -> AbstractContextManager[_Near | _Far]:
    return nullcontext(_Far(source)) if isinstance(source, BlobSource) else _Near(source.file.fileno())


def _may_touch(into: Into | None, source: FileSource | BlobSource, account: Account, *, cached: bool) -> bool:
    """Tell whether living tensors may be written over; where that asks for a whole file, see that it is.

    Raises:
        DamagedCheckpointError: if it is not.

    """
    if into is None or not into.careful:
        return into is not None
    if not cached or isinstance(source, BlobSource):
        return False  # it would be read from the disk twice
    inspection = Inspection(source.path, account)
    pour(source.file.fileno(), account.end, inspection.take)
    inspection.finish()
    return True


def _contents(image: mmap.mmap, account: Account, homes: Homes) -> Contents:
    contents = Contents(homes=homes)
    kept = 0  # where the memory ends that has an owner or was given back
    for item in account.placed:
        name, begin, end = item.record.name, item.data_offset, item.data_offset + item.record.size
        if not name.startswith(TENSORS):
            contents.others[name] = image[begin:end]
        elif name in homes.storages:
            contents.tensors[name] = torch.empty(0, dtype=torch.uint8).set_(homes.storages[name])
        elif item.record.size < _LARGE:
            contents.tensors[name] = _copied(image, item)
        else:
            contents.tensors[name] = _part(image, begin, end)
            give_back(image, kept, begin)
            kept = end
    give_back(image, kept, len(image))
    return contents


def _copied(image: mmap.mmap, item: Placed) -> torch.Tensor:
    size = item.record.size
    if not size:  # torch makes no tensor of no memory
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return torch.frombuffer(image, dtype=torch.uint8, count=size, offset=item.data_offset).clone()


def _part(image: mmap.mmap, begin: int, end: int) -> torch.Tensor:
    """Return a tensor over a part of the image, which gives back its pages when nobody has it any more."""
    view = memoryview(image)[begin:end]
    weakref.finalize(view, give_back, image, begin, end).atexit = False
    return torch.frombuffer(view, dtype=torch.uint8)  # torch holds on to the view


def give_back(image: mmap.mmap, begin: int, end: int) -> None:
    """Return to the system the pages that lie between two places as a whole."""
    first, last = whole_pages(begin), end // PAGE * PAGE
    if _DROP is not None and first < last:
        image.madvise(_DROP, first, last - first)


def keeps_what_it_has() -> bool:
    """Tell, by trying, whether a tensor holds on to the view that it was made of, so that its pages stay its own."""
    image = page_memory(2 * PAGE)
    image[:] = b"\1" * len(image)
    return bool(_part(image, 0, len(image)).all())
