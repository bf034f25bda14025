"""What the machine itself can do with the same bytes: memory to memory, memory to disk, disk to memory.

The disk is written and read with ``O_DIRECT`` in blocks of 16 MiB by two threads, from and to warm memory
in pages as large as the system gives; where the filesystem takes no ``O_DIRECT``, through the page cache.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

BLOCK = 1 << 24
THREADS = 2
PAGE = 4096


class Buffer:
    """Warm, page-aligned memory of at least ``size`` bytes, in whole pages."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pages = mmap.mmap(-1, -(-size // PAGE) * PAGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without large pages
                self.pages.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self.pages)
        self.tensor = torch.frombuffer(self.pages, dtype=torch.uint8)
        self.tensor.fill_(7)

    def close(self) -> None:
        """Give the memory back."""
        del self.tensor
        self.view.release()
        with contextlib.suppress(BufferError):  # torch lets go of it a little later
            self.pages.close()


def write(buffer: Buffer, path: str) -> None:
    """Write the buffer under a temporary name, fsync, rename, fsync the directory."""
    temporary = path + ".part"
    descriptor = _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, len(buffer.view))
        _blocks(len(buffer.view), lambda start, end: os.pwrite(descriptor, buffer.view[start:end], start))
        if len(buffer.view) != buffer.size:
            os.ftruncate(descriptor, buffer.size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    sync(os.path.dirname(path))


def read(path: str, buffer: Buffer, *, direct: bool) -> None:
    """Read a file into the buffer: from the disk itself, or through the page cache."""
    descriptor = _open(path, os.O_RDONLY) if direct else os.open(path, os.O_RDONLY)
    try:
        size = min(len(buffer.view), -(-os.fstat(descriptor).st_size // PAGE) * PAGE)
        _blocks(size, lambda start, end: os.preadv(descriptor, [buffer.view[start:end]], start))
    finally:
        os.close(descriptor)


def sync(path: str) -> None:
    """Fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def takes_direct(folder: str) -> bool:
    """Tell whether files in this folder can be opened with ``O_DIRECT``."""
    path = os.path.join(folder, "direct.probe")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_DIRECT", 0)))
    except OSError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    return hasattr(os, "O_DIRECT")


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | getattr(os, "O_DIRECT", 0), 0o644)
    except OSError:
        return os.open(path, flags, 0o644)


def _blocks(size: int, transfer: Callable[[int, int], int]) -> None:
    """Transfer every block, from a few threads; a short transfer is gone on with."""

    def whole(start: int) -> None:
        end = min(start + BLOCK, size)
        while start < end:
            done = transfer(start, end)
            if done <= 0:
                return  # the end of a file that is shorter than its pages
            start += done

    if size <= BLOCK:
        whole(0)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(whole, range(0, size, BLOCK)))
