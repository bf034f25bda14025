"""Reading a file of this machine into memory at the speed of its disk, or of the page cache.

A range that the page cache holds is copied from there; any other is read past the cache (``O_DIRECT``):
the disk then writes straight into the caller's memory, which is faster than what the kernel's
read-ahead reaches and spares both the copy and the pages of the training. Which ranges are cached is
asked of ``mincore``: a trial read with ``RWF_NOWAIT`` would itself start a read-ahead of what it
misses, and each such byte would be read twice. Where the filesystem or the system has no such thing
(tmpfs, FUSE, NFS, macOS), the same bytes come by ordinary reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a listing should start fast
    from typing_extensions import Self

PAGE = max(4096, mmap.PAGESIZE)  # direct reads begin and end at multiples of it, in the file and in memory
PIECE = 1 << 23  # bytes of one read: enough for the disk, and the digest finds the end still in the cache
CACHED_PIECE = 1 << 20  # bytes of one read that stay in a core's cache on their way from the page cache to elsewhere
THREADS = 6  # reads under way: more than cores, for most of them wait for the disk
CACHED_THREADS = min(THREADS, os.cpu_count() or 1)  # what waits for no disk is only in its own way

_HUGE = 1 << 21
_DIRECT = getattr(os, "O_DIRECT", 0)
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)

T = TypeVar("T")


class FileReader:
    """Reads ranges of one open file into page-aligned memory, from any number of threads.

    The descriptor stays the caller's. It is the same file that is read throughout, whatever its name
    comes to mean.
    """

    def __init__(self, descriptor: int) -> None:
        """Open the file a second time for direct reads, where it can be."""
        self._buffered = descriptor
        self._direct = _reopen(descriptor)
        self._cache = None if self._direct is None else _PageCache.of(descriptor)

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened here; no read may be under way."""
        if self._cache is not None:
            self._cache.close()
        if self._direct is not None:
            os.close(self._direct)

    def has(self, offset: int, length: int) -> bool:
        """Tell whether the page cache holds all of a range, as far as that can be known."""
        return self._cache is not None and self._cache.has(offset, length)

    def read_into(self, memory: memoryview, offset: int) -> int:
        """Fill page-aligned memory from a multiple of ``PAGE``; return the bytes read.

        They are fewer than asked for only where the file ends.

        Raises:
            OSError: what the system says of a read that failed.

        """
        read = 0
        if self._direct is not None:
            read = self._read_cached(memory, offset)
            read = self._read_direct(self._direct, memory, offset, read)
        while read < len(memory):
            more = _read(self._buffered, memory[read:], offset + read)
            if not more:
                break
            read += more
        return read

    def _read_cached(self, memory: memoryview, offset: int) -> int:
        """Copy from the page cache what lies there: whole pages, or all up to the file's end."""
        if self._cache is None or not self._cache.has(offset, len(memory)):
            return 0
        try:
            read = os.preadv(self._buffered, [memory], offset, _NOWAIT)
        except OSError:  # not cached after all, or a filesystem that cannot tell
            read = 0
        if read < len(memory) // 2:
            self._cache.lies = True
        ends = read == len(memory) or offset + read >= self._cache.size
        return read if ends else read // PAGE * PAGE

    def _read_direct(self, descriptor: int, memory: memoryview, offset: int, read: int) -> int:
        """Go on past the cache, as long as it comes in whole pages."""
        while read < len(memory) and read % PAGE == 0 and len(memory) % PAGE == 0:
            try:
                more = os.preadv(descriptor, [memory[read:]], offset + read)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                return read
            if not more:
                return read
            read += more
        return read


def page_memory(size: int, huge: Iterable[tuple[int, int]] | None = None) -> mmap.mmap:
    """Return fresh memory of at least this size, at the beginning of a page, in whole pages.

    It belongs to this process alone and goes back to the system with its last user. In huge pages
    where it is large, or in the ranges that are given, those of them that are large: the first touch of
    small ones costs more than the reading; the first touch of huge ones more than a little in each.
    """
    whole = max(PAGE, whole_pages(size))
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, whole)
    memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for begin, end in [(0, whole)] if huge is None else huge:
        first, last = whole_pages(begin), end // PAGE * PAGE
        if last - first >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE, first, last - first)
    return memory


def in_threads(work: Callable[[T], None], items: Iterable[T], threads: int = THREADS) -> None:
    """Do the work for each item, in order of their beginning; stop at the first error and raise it."""
    rest, lock, failed = iter(items), threading.Lock(), threading.Event()

    def run() -> None:
        while not failed.is_set():
            with lock:
                item = next(rest, None)
            if item is None:
                return
            try:
                work(item)
            except BaseException:
                failed.set()
                raise

    first = list(itertools.islice(rest, 2))
    rest = itertools.chain(first, rest)
    if len(first) < 2:  # noqa: PLR2004 - nothing to do side by side
        run()
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to import, and a listing needs none

    with ThreadPoolExecutor(threads, "holdfast-read") as pool:
        done = [pool.submit(run) for _ in range(threads)]
    for future in done:
        future.result()


def pour(descriptor: int, end: int, take: Callable[[int, memoryview], None]) -> None:
    """Read a file up to ``end`` and hand over each piece with its offset, from several threads, in any order.

    Takes ``THREADS`` pieces of memory, however large the file is; ``take`` may not keep what it is given.
    """
    own = threading.local()
    piece, threads = PIECE, THREADS

    def work(offset: int) -> None:
        if not hasattr(own, "memory"):
            own.memory = memoryview(page_memory(min(piece, end)))
        length = min(piece, end - offset)
        read = reader.read_into(own.memory[: whole_pages(length)], offset)
        take(offset, own.memory[: min(read, length)])

    with FileReader(descriptor) as reader:
        if reader.has(0, end):
            piece, threads = CACHED_PIECE, CACHED_THREADS
        in_threads(work, range(0, end, piece), threads)


def whole_pages(size: int) -> int:
    """Round up to whole pages."""
    return -(-size // PAGE) * PAGE


def _reopen(descriptor: int) -> int | None:
    """Open the same file once more for direct reads; None where that is not possible."""
    if not (_DIRECT and _NOWAIT):
        return None
    try:
        direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC | _DIRECT)
    except OSError:
        return None
    if not os.path.sameopenfile(direct, descriptor):
        os.close(direct)
        return None
    return direct


def _read(descriptor: int, memory: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [memory], offset)
    data = os.pread(descriptor, len(memory), offset)
    memory[: len(data)] = data
    return len(data)


class _PageCache:
    """Tells which ranges of a file the page cache holds, without reading any.

    ``lies`` is set when it has promised what was not there (the system says "all" of files that the
    user may not write); from then on nothing is taken to be cached.
    """

    def __init__(self, libc: ctypes.CDLL, address: int, size: int) -> None:
        self._libc, self._address, self.size = libc, address, size
        self.lies = False

    @classmethod
    def of(cls, descriptor: int) -> _PageCache | None:
        """Map the file, of which no byte will be touched; None where that cannot be."""
        size = os.fstat(descriptor).st_size
        try:
            libc = ctypes.CDLL(None)
            libc.mmap.restype = ctypes.c_void_p
            libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
            for call, *rest in ((libc.mincore, ctypes.c_char_p), (libc.munmap,)):
                call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *rest)
        except (OSError, AttributeError):
            return None
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0) if size else None
        return None if address in (None, ctypes.c_void_p(-1).value) else cls(libc, address, size)

    def has(self, offset: int, length: int) -> bool:
        """Tell whether all of a range, which begins at a page, is cached."""
        length = min(length, self.size - offset)
        if self.lies or length <= 0:
            return False
        pages = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        if self._libc.mincore(self._address + offset, length, pages) != 0:
            return False
        return all(byte & 1 for byte in set(pages.raw))

    def close(self) -> None:
        """Take the mapping away."""
        self._libc.munmap(self._address, self.size)
