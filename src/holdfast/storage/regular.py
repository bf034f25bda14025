"""Opening a file that may be anything: a pipe would wait for a writer for ever, a device may do what nobody knows."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO


def open_regular(path: str, within: int | None = None) -> BinaryIO:
    """Open a regular file for reading, and nothing else; never waits. Symbolic links are followed.

    A relative path is one in the open directory ``within``, if that is given.

    Raises:
        FileNotFoundError: if there is nothing, or a pipe, a device or a socket.
        IsADirectoryError: if it is a directory.

    """
    _check(os.stat(path, dir_fd=within), path)  # before the opening: that alone may do something to a device
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=within)
    try:
        _check(os.fstat(descriptor), path)  # it may have become another since
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _check(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, "what stands there is a pipe, a device or a socket, and no file", path)
