"""One run, one directory: a locked file that says who trains there, and is gone when the run ends.

``flock`` is released by the kernel when its last holder ends, however it ends: no timeout, and a file that a
dead run has left is simply taken over. A forked child closes what it has inherited at once, so that a worker
which outlives its parent holds nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.errors import DirectoryInUseError
from holdfast.storage.durable import make_folders
from holdfast.storage.locks import RUN_LOCK, close, unlock
from holdfast.telling import warn

try:
    import fcntl
except ImportError:  # no flock on this system: nobody's directory is known to be in use
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_FLAGS = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK if fcntl is not None else 0  # a pipe would wait
_LOOKS, _LOOK = 40, 0.005  # how often, and every how many seconds, to look for what a holder writes of itself
_DEAD_HOLDS = 2.0  # seconds for the children of a dead holder to close what they have inherited


@dataclass
class _Held:
    """The locked file of one directory, which all that save there from this process share."""

    path: str
    descriptor: int
    made: Sequence[str]
    since: str
    users: int = 1
    process: int = field(default_factory=os.getpid)


_held: dict[tuple[int, int], _Held] = {}  # by device and inode: a directory can have several paths
_guard = threading.RLock()  # a collected checkpointer may give up its own in the middle of another's call
_warned: set[str] = set()


class Ownership:
    """The right to save to a directory, until ``give_up``."""

    def __init__(self, held: _Held) -> None:
        """Count as one more user."""
        self._held: _Held | None = held

    def give_up(self) -> None:
        """Give the right up; the last user of this process removes the file. Idempotent; nothing in a forked child."""
        with _guard:
            held, self._held = self._held, None
            if held is None or held.process != os.getpid():
                return
            held.users -= 1
            if not held.users:
                _release(held)


def own_directory(folder: str, *, run: str, since: str) -> Ownership | None:
    """Take a directory for this process; make it if it is not there.

    Returns None where the filesystem has no locks, which is warned of once, and where no file can be made: the
    first save will say why.

    Raises:
        DirectoryInUseError: if another process has it.

    """
    if fcntl is None:
        return None
    with _guard:
        try:
            return Ownership(_take(os.path.realpath(folder), run, since))
        except DirectoryInUseError:
            raise
        except OSError as error:
            if error.errno in _NO_LOCKS and folder not in _warned:
                _warned.add(folder)
                warn(
                    f"the filesystem of {folder} has no locks ({error}): two runs in this directory would not be "
                    "noticed. Give each run a directory of its own"
                )
            return None


def is_owned_here(folder: str) -> bool:
    """Tell whether this very process has a directory already; without taking it, and without touching anything."""
    try:
        status = os.lstat(os.path.join(os.path.realpath(folder), RUN_LOCK))
    except OSError:
        return False
    with _guard:
        held = _held.get((status.st_dev, status.st_ino))
        return held is not None and held.process == os.getpid()


def give_up_all() -> None:
    """Give up every directory of this process, because it is about to end."""
    with _guard:
        for held in list(_held.values()):
            _release(held)


def _take(folder: str, run: str, since: str) -> _Held:
    path = os.path.join(folder, RUN_LOCK)
    made = make_folders(folder)
    while True:
        try:
            descriptor = _open(path)
        except FileNotFoundError:  # its last user has removed the folder, which it had made
            made = make_folders(folder)
            continue
        kept = False
        try:
            shared = _lock(descriptor, folder)
            if shared is not None:
                shared.users += 1
                if run:
                    _introduce(shared, run)
                return shared
            if _is_still(descriptor, path):
                held = _held[_key(descriptor)] = _Held(path, descriptor, made, since)
                kept = True
                _introduce(held, run)
                return held
        finally:
            if not kept:
                close(descriptor)


def _open(path: str) -> int:
    try:
        return os.open(path, _FLAGS | os.O_RDWR, 0o666)
    except PermissionError:
        if not os.path.lexists(path):
            raise
        return os.open(path, (_FLAGS & ~os.O_CREAT) | os.O_RDONLY)  # another user's


def _lock(descriptor: int, folder: str) -> _Held | None:
    """Lock an open file; return what this process has of it already.

    A holder that is dead has it no longer, though a child that it forked just before may still come to close it.

    Raises:
        DirectoryInUseError: if another process has it.

    """
    until = time.monotonic() + _DEAD_HOLDS
    while not _flock(descriptor):
        shared = _held.get(_key(descriptor))
        if shared is not None:
            return shared
        holder = _holder(descriptor)
        if not _is_dead(holder) or time.monotonic() > until:
            raise DirectoryInUseError(folder, **holder)
        time.sleep(_LOOK)
    return None


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_dead(holder: dict[str, str]) -> bool:
    """Tell whether the process that a holder names was one of this host and has ended."""
    if holder.get("host") != _host() or not holder["pid"].isdecimal():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's; a number that is none
        return False
    return False


def _host() -> str:
    """Return this machine's name: what ``socket.gethostname`` says, whose module takes long to import."""
    return os.uname().nodename


def _key(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _is_still(descriptor: int, path: str) -> bool:
    """Tell whether the file that is open is the one of this name: its last user removes it while it holds it."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == _key(descriptor)


def _introduce(held: _Held, run: str) -> None:
    """Write who we are. What cannot be written is missing in another's error, and nowhere else."""
    facts = {"run": run, "host": _host(), "pid": os.getpid(), "since": held.since}
    with contextlib.suppress(OSError):  # a full disk; a file of another user
        os.ftruncate(held.descriptor, 0)
        os.pwrite(held.descriptor, json.dumps(facts).encode(), 0)


def _holder(descriptor: int) -> dict[str, str]:
    """Read who holds the file; what cannot be read is "". Waits a moment for one that has only just taken it."""
    for _ in range(_LOOKS):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            facts = json.loads(os.pread(descriptor, 4096, 0))
            return {name: str(facts.get(name, "")) for name in ("run", "host", "pid", "since")}
        time.sleep(_LOOK)
    return {}


def _release(held: _Held) -> None:
    """Remove the file while it is held, then give up the lock; and the folders that were made for it, if empty."""
    _held.pop(_key(held.descriptor), None)
    with contextlib.suppress(OSError):  # a folder that may no longer be written: the next run takes the file over
        if _is_still(held.descriptor, held.path):
            os.unlink(held.path)
    unlock(held.descriptor)
    close(held.descriptor)
    with contextlib.suppress(OSError):  # one that is in use stays, with those above it
        for folder in reversed(held.made):
            os.rmdir(folder)


def _forget() -> None:
    """In a forked child: the directories are its parent's."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.RLock()
    for held in _held.values():
        close(held.descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
