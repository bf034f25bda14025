"""Page-aligned memory of this process, for bytes on their way to a disk."""

from __future__ import annotations

import ctypes
import mmap

PAGE = 4096  # bytes; no disk has larger logical blocks, and no common machine smaller pages
_HUGE = 1 << 21
_POPULATE_WRITE = 23  # linux/mman.h, since 5.14


def allocate(size: int) -> mmap.mmap:
    """Return zeroed memory of at least this size, private to the process, in huge pages if it is large."""
    length = max(PAGE, -(-size // PAGE) * PAGE)
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, length)
    memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if length >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def keep_from_children(memory: mmap.mmap) -> None:
    """Leave the memory out of processes that are forked: they would copy each page that changes here."""
    if hasattr(mmap, "MADV_DONTFORK"):
        memory.madvise(mmap.MADV_DONTFORK)


def show_to_children(memory: mmap.mmap) -> None:
    """Let processes that are forked see the memory again, each page until it changes in either."""
    if hasattr(mmap, "MADV_DOFORK"):
        memory.madvise(mmap.MADV_DOFORK)


def touch(memory: mmap.mmap) -> None:
    """Have the system give all the pages now, so that the first copy into them is as fast as the next."""
    address = address_of(memoryview(memory))
    libc = ctypes.CDLL(None)
    madvise = getattr(libc, "madvise", None)
    if madvise is None or madvise(ctypes.c_void_p(address), ctypes.c_size_t(len(memory)), _POPULATE_WRITE):
        ctypes.memset(address, 0, len(memory))


def address_of(view: memoryview) -> int:
    """Return where a writable view lies in memory."""
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
