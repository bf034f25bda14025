"""Page-aligned memory of this process, for bytes on their way to a disk."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys

PAGE = 4096  # bytes; no disk has larger logical blocks, and no common machine smaller pages
_HUGE = 1 << 21
_POPULATE_WRITE = 23  # linux/mman.h, since 5.14
_NO_RESERVE = 0x4000  # asm-generic/mman.h; Python has no name for it
_WIPE_ON_FORK, _KEEP_ON_FORK = 18, 19  # the same, since 4.14


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
    """Give processes that are forked none of the pages: they would copy each that changes here.

    They have zeros in their place. Left out altogether, the range would be free there, and soon something
    else's, which the end of this object would then take away.
    """
    _advise(memory, _WIPE_ON_FORK)


def show_to_children(memory: mmap.mmap) -> None:
    """Let processes that are forked see the memory again, each page until it changes in either."""
    _advise(memory, _KEEP_ON_FORK)


def _advise(memory: mmap.mmap, advice: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # an older kernel: a child has the pages, until they change
            memory.madvise(advice)


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


def reserve(size: int) -> mmap.mmap:
    """Return zeroed memory of at least this size that takes nothing until it is touched, however large it is.

    What is touched can be given back page by page (``madvise``), and is then zeros again.
    """
    length = max(PAGE, -(-size // PAGE) * PAGE)
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return mmap.mmap(-1, length)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if sys.platform == "linux":
        flags |= _NO_RESERVE  # else the system refuses what is larger than its own memory
    memory = mmap.mmap(-1, length, flags=flags)
    if length >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
