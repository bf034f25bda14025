"""A temporary file is locked while its writer lives, so that a sweep can tell the dead from the living.

``flock`` is released by the kernel when the process ends, however it ends. A sweep removes a file while
it holds the lock, so that no writer can take the file for its own in between.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator

try:
    import fcntl
except ImportError:  # no flock on this system: nothing is ever taken for abandoned
    fcntl = None  # type: ignore[assignment]


RUN_LOCK = ".holdfast-run.lock"  # the file that says which run a directory belongs to: run_lock.py

ANYTHING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # to look at it: a pipe would wait
_LOOKS, _LOOK = 200, 0.005  # how often, and every how many seconds, to look whether a sweep is over


def lock_for_life(descriptor: int) -> bool:
    """Lock an open file until it is unlocked; False if a sweep has removed it, or is about to."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Any other error means that the filesystem has no locks: a sweep cannot have one either.
            if isinstance(error, BlockingIOError):
                return False
    return os.fstat(descriptor).st_nlink > 0


def unlock(descriptor: int) -> None:
    """Give the lock up, before the file is closed: a process forked meanwhile has it open, too, and would keep it."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def close(descriptor: int) -> None:
    """Close a file that was opened for its lock. It is closed also where that reports an error."""
    with contextlib.suppress(OSError):  # nothing was written that had to be kept
        os.close(descriptor)


def keep_from_sweeps(descriptor: int) -> None:
    """Hold an open file, under all of its names, until it is unlocked; waits a moment while a sweep looks at it."""
    if fcntl is not None:
        _wait_for(descriptor, fcntl.LOCK_SH)


def _wait_for(descriptor: int, kind: int) -> bool:
    """Lock an open file, waiting a moment for others; True also where there are no locks."""
    for _ in range(_LOOKS):
        if _locked(descriptor, kind):
            return True
        time.sleep(_LOOK)
    return False


def _locked(descriptor: int, kind: int) -> bool:
    """Try to lock an open file; True also where the filesystem has no locks, as nobody else has one either."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


@contextlib.contextmanager
def hold(path: str, *, alone: bool) -> Iterator[bool]:
    """Hold a file against those who hold it alone, or ``alone``: against all who hold it. Waits at most a second.

    Yields whether it is held, and still the file of this name. Where there are no locks, or it may not be opened,
    nobody has one: True.
    """
    if fcntl is None:
        yield os.path.lexists(path)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait
    except OSError:
        yield os.path.lexists(path)
        return
    try:
        yield _wait_for(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH) and _is_at(descriptor, path)
    finally:
        unlock(descriptor)
        with contextlib.suppress(OSError):  # nothing was written by it
            os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    """Tell whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except OSError:
        return False


def is_locked(path: str) -> bool | None:
    """Tell whether somebody who lives has locked a file; None where that cannot be told. Changes nothing."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        unlock(descriptor)
        os.close(descriptor)


def remove_abandoned(path: str) -> bool:
    """Remove a temporary file if its writer is gone; tell whether it was."""

    def remove(mode: int) -> bool:
        if stat.S_ISREG(mode):
            os.unlink(path)
        return stat.S_ISREG(mode)

    return if_abandoned(path, remove)


def if_abandoned(path: str, remove: Callable[[int], bool]) -> bool:
    """Call ``remove`` with the mode of a file or a folder if its writer is gone; return what it says.

    False as well if the writer lives, or that cannot be told, or it cannot be removed.
    """
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, ANYTHING)
    except OSError:
        return False
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return remove(mode)
    except OSError:
        return False
    finally:
        unlock(descriptor)
        close(descriptor)
