"""A temporary file is locked while its writer lives, so that a sweep can tell the dead from the living.

``flock`` is released by the kernel when the process ends, however it ends. A sweep removes a file while
it holds the lock, so that no writer can take the file for its own in between.
"""

from __future__ import annotations

import contextlib
import os

try:
    import fcntl
except ImportError:  # no flock on this system: nothing is ever taken for abandoned
    fcntl = None  # type: ignore[assignment]


def lock_for_life(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if a sweep has removed it, or is about to."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error means that the filesystem has no locks: a sweep cannot have one either.
            if isinstance(error, BlockingIOError):
                return False
    return os.fstat(descriptor).st_nlink > 0


def keep_from_sweeps(descriptor: int) -> None:
    """Hold an open file, under all of its names, until it is closed; waits while a sweep looks at it."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # no locks here: nothing is swept either
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def remove_abandoned(path: str) -> bool:
    """Remove a temporary file if its writer is gone; tell whether it was."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
