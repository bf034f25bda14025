"""A temporary file is locked while its writer lives, so that a sweep can tell the dead from the living.

``flock`` is released by the kernel when the process ends, however it ends.
"""

from __future__ import annotations

import os

try:
    import fcntl
except ImportError:  # no flock on this system: nothing is ever taken for abandoned
    fcntl = None  # type: ignore[assignment]


def lock_for_life(descriptor: int) -> bool:
    """Lock an open file until it is closed; False if its name was removed before the lock held."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # A sweep is looking at it right now, or the filesystem has no locks.
            return os.fstat(descriptor).st_nlink > 0
    return os.fstat(descriptor).st_nlink > 0


def is_abandoned(path: str) -> bool:
    """Tell whether a temporary file's writer is gone."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
