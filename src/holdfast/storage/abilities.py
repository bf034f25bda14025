"""What a folder's filesystem can do: tried, with temporary files that are removed, and never assumed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.memory import PAGE, allocate
from holdfast.storage.contract import HIDDEN
from holdfast.storage.durable import sync_file, sync_folder
from holdfast.storage.listing import TEMPORARY_SUFFIX

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Abilities:
    """What was found out about a folder. Each ability is "" if it is there, else why it is not.

    Attributes:
        writing: making, writing and removing a file; nothing else could be tried without it.
        replacing: renaming a file over another in one step.
        syncing: having the disk keep a file.
        folder_syncing: having the disk keep a name.
        locking: ``flock``, between two openings of one file.
        linking: a second name for a file.
        direct: writing past the page cache (``O_DIRECT``).
        free: bytes that this user may still write; None where that cannot be told.

    """

    writing: str = ""
    replacing: str = ""
    syncing: str = ""
    folder_syncing: str = ""
    locking: str = ""
    linking: str = ""
    direct: str = ""
    free: int | None = None


def probe(folder: str) -> Abilities:
    """Try what a folder that is there can do; whatever is made for that is removed again."""
    free = None
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free
    writing = _why(lambda: _write(folder))
    if writing:
        return Abilities(writing=writing, free=free)
    return Abilities(
        replacing=_why(lambda: _replace(folder)),
        syncing=_why(lambda: _sync(folder)),
        folder_syncing=_why(lambda: sync_folder(folder)),
        locking=_why(lambda: _lock(folder)),
        linking=_why(lambda: _link(folder)),
        direct=_why(lambda: _write_direct(folder)),
        free=free,
    )


def _why(attempt: Callable[[], None]) -> str:
    """Return why an attempt failed; "" if it did not."""
    try:
        attempt()
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextmanager
def _made(folder: str, data: bytes = b"x") -> Iterator[str]:
    """Make a temporary file for a moment; one that a kill leaves is swept as any other."""
    path = os.path.join(folder, f"{HIDDEN}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    with open(path, "xb") as file:
        file.write(data)
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _write(folder: str) -> None:
    with _made(folder):
        pass


def _replace(folder: str) -> None:
    with _made(folder, b"new") as one, _made(folder, b"old") as other:
        os.replace(one, other)
        with open(other, "rb") as file:
            if file.read() != b"new" or os.path.exists(one):
                raise OSError("it reported success and did something else")


def _sync(folder: str) -> None:
    with _made(folder) as path, open(path, "rb+") as file:
        sync_file(file.fileno())


def _lock(folder: str) -> None:
    if fcntl is None:
        raise OSError("this system has none")
    with _made(folder) as path, open(path, "rb") as one, open(path, "rb") as other:
        fcntl.flock(one.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    raise OSError("two had the same lock at once")


def _link(folder: str) -> None:
    with _made(folder) as path, _made(folder) as other:
        os.unlink(other)
        os.link(path, other)
        if not os.path.samefile(path, other):
            raise OSError("it reported success and did something else")


def _write_direct(folder: str) -> None:
    if not hasattr(os, "O_DIRECT"):
        raise OSError("this system has none")
    with _made(folder) as path:
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            if os.pwrite(descriptor, memoryview(allocate(PAGE))[:PAGE], 0) != PAGE:
                raise OSError("it wrote less than it was given")
        finally:
            os.close(descriptor)
