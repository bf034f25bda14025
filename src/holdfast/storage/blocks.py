"""Large blocks from a stream of chunks to an open file, past the page cache where the filesystem allows.

A buffered write copies every byte once more, on the processor that training needs, and fills the page
cache with what nobody will read. ``O_DIRECT`` has the device fetch the bytes from where they lie; it
wants addresses, offsets and lengths that are multiples of the device's block. Chunks that are so
aligned are written from where they are; all others pass through a few aligned buffers.
"""

from __future__ import annotations

import collections
import errno
import mmap
import os
from functools import partial
from typing import TYPE_CHECKING

from holdfast.memory import PAGE, address_of, allocate
from holdfast.threads import Threads, Work

if TYPE_CHECKING:  # a listing should start fast
    from typing_extensions import Self

BLOCK = 1 << 24  # bytes of one write from memory that is aligned already
_BOUNCE = 1 << 22  # bytes of one of the aligned buffers: their memory is small and stays warm
_WRITERS = 2  # one keeps the disk of a small machine busy; two, while one of them waits for a processor
_SPARE: collections.deque[mmap.mmap] = collections.deque(maxlen=_WRITERS + 1)


class BlockWriter:
    """Writes chunks one after the other to a new file. A context manager: leaving it waits for all writes.

    Args:
        descriptor: the open file; short ends and filesystems without ``O_DIRECT`` are written by it.
        path: the same file's path, to open it a second time for the direct writes.
        start: where to begin: a multiple of a page; what stands before stays.

    A chunk that is aligned is not copied: it has to stay as it is until ``finish`` returns.
    """

    def __init__(self, descriptor: int, path: str, start: int = 0) -> None:
        """Write nothing yet."""
        self._descriptor = descriptor
        self._path = path
        self._direct: int | None = None
        self._offset = start
        self._bounce: mmap.mmap | None = None
        self._filled = 0
        self._threads: Threads | None = None
        self._writes: collections.deque[tuple[Work, mmap.mmap | None]] = collections.deque()

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until no thread reads the memory or writes the file any more, whatever happened."""
        if self._threads is not None:
            self._threads.stop()
        if self._direct is not None:
            os.close(self._direct)

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            OSError: if these or earlier bytes could not be written.

        """
        view = memoryview(chunk).cast("B")
        while len(view):
            taken = self._take_in_place(view) if self._is_aligned(view) else self._take_by_copy(view)
            view = view[taken:]

    def finish(self) -> int:
        """Write what is left; return where the file ends: the bytes written in all, those before ``start`` as well.

        Raises:
            OSError: if any bytes could not be written.

        """
        bounce, filled = self._bounce, self._filled
        start = self._offset
        if bounce is not None:
            direct = filled // PAGE * PAGE if start else 0  # ordinary calls are quicker than threads for a small file
            self._bounce = None
            if direct:
                self._submit(memoryview(bounce)[:direct], None)
            _append(self._descriptor, memoryview(bounce)[direct:filled], start + direct)
            self._offset = start + filled
        while self._writes:
            self._reap()
        if bounce is not None:
            _SPARE.append(bounce)
        return self._offset

    def _is_aligned(self, view: memoryview) -> bool:
        return not self._filled and len(view) >= PAGE and not view.readonly and address_of(view) % PAGE == 0

    def _take_in_place(self, view: memoryview) -> int:
        taken = min(len(view), BLOCK) // PAGE * PAGE
        self._submit(view[:taken], None)
        self._offset += taken
        return taken

    def _take_by_copy(self, view: memoryview) -> int:
        if self._bounce is None:
            self._bounce = self._free_bounce()
        taken = min(len(view), _BOUNCE - self._filled)
        self._bounce[self._filled : self._filled + taken] = view[:taken]
        self._filled += taken
        if self._filled == _BOUNCE:
            self._submit(memoryview(self._bounce), self._bounce)
            self._offset += _BOUNCE
            self._bounce, self._filled = None, 0
        return taken

    def _free_bounce(self) -> mmap.mmap:
        try:
            return _SPARE.pop()
        except IndexError:
            return allocate(_BOUNCE)

    def _submit(self, block: memoryview, bounce: mmap.mmap | None) -> None:
        if self._threads is None:
            self._direct = _open_direct(self._path)
            self._threads = Threads(_WRITERS, "holdfast-disk")
        while len(self._writes) > _WRITERS:
            self._reap()
        work = self._threads.run(partial(self._write, block, self._offset))
        self._writes.append((work, bounce))

    def _reap(self) -> None:
        """Wait for the oldest write; its buffer is free again."""
        work, bounce = self._writes.popleft()
        work.join()
        if bounce is not None:
            _SPARE.append(bounce)

    def _write(self, block: memoryview, offset: int) -> None:
        written = 0
        if self._direct is not None:
            try:
                written = _write_direct(self._direct, block, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: opened, but not to be written like this after all
                    raise
        while written < len(block):
            written += _some(os.pwrite(self._descriptor, block[written:], offset + written))


def _append(descriptor: int, data: memoryview, offset: int) -> None:
    """Write the end of the file, by calls that go on where the last one ended: lost bytes make it shorter."""
    if offset:
        os.lseek(descriptor, offset, os.SEEK_SET)
    while len(data):
        data = data[_some(os.write(descriptor, data)) :]


def _some(written: int) -> int:
    """Return the bytes written; none at all, without an error, would have us try for ever."""
    if not written:
        raise OSError(errno.EIO, "the system wrote none of the bytes it was given")
    return written


def _write_direct(descriptor: int, block: memoryview, offset: int) -> int:
    """Write directly as far as the writes stay aligned; return the bytes written."""
    written = 0
    while written < len(block) and written % PAGE == 0:
        now = os.pwrite(descriptor, block[written:], offset + written)
        if not now:
            break
        written += now
    return written


def _open_direct(path: str) -> int | None:
    """Open the file for direct writes; None where there is no such thing (tmpfs, some FUSE, macOS)."""
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP):
            return None
        raise
