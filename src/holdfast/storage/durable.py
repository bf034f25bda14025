"""What survives a power cut: the order of a durable write.

Temporary file beside the target, write, length, fsync, rename, fsync of the directory. A rename without the file's
fsync can leave an empty file after a power cut; one without the directory's fsync can leave the old name (Pillai et
al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from holdfast.storage.contract import HIDDEN
from holdfast.storage.listing import TEMPORARY_SUFFIX
from holdfast.storage.locks import lock_for_life, remove_abandoned, unlock

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def temporary_beside(target: str, spare: str = "") -> Iterator[tuple[str, int]]:
    """Open a locked temporary file in the target's folder, the spare one if it can be; remove it on an error."""
    temporary, descriptor = spare, _open_spare(spare, target)
    if spare and descriptor is None:
        remove_abandoned(spare)
    while descriptor is None:
        temporary = temporary_name(target)
        made = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
        if lock_for_life(made):
            descriptor = made
        else:
            os.close(made)  # a sweep took it between its making and its locking
    try:
        yield temporary, descriptor
    except BaseException:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # by now an old bundle may have this name
            os.unlink(temporary)
        raise
    finally:
        unlock(descriptor)
        os.close(descriptor)


def commit_temporary(descriptor: int, temporary: str, target: str, written: int) -> None:
    """Give a temporary file that was written whole its name; on return it survives a power cut.

    Raises:
        OSError: if it has not the bytes that were written, or cannot be made durable.

    """
    length = os.fstat(descriptor).st_size
    if length != written:
        msg = f"wrote {written} bytes but the file has {length}"
        raise OSError(errno.EIO, msg, target)
    sync_file(descriptor)
    take_place(temporary, target)
    sync_folder(os.path.dirname(target))


def take_place(made: str, target: str) -> None:
    """Give a file its name, in the place of a file or a bundle that has it; not durable yet where it was a file."""
    try:
        os.rename(made, target)
    except IsADirectoryError:
        from holdfast.storage.bundles import replace_bundle  # noqa: PLC0415 - hardly ever

        replace_bundle(made, target)


def _open_spare(spare: str, target: str) -> int | None:
    """Open and lock a retired file; None if it is gone, has another name, or lies on another filesystem."""
    if not spare:
        return None
    try:
        descriptor = os.open(spare, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    status = os.fstat(descriptor)
    alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    here = status.st_dev == os.stat(os.path.dirname(target)).st_dev
    if alone and here and lock_for_life(descriptor):
        sync_folder(os.path.dirname(spare))  # or a power cut could bring its old name back, written over
        return descriptor
    unlock(descriptor)
    os.close(descriptor)
    return None


def temporary_name(target: str) -> str:
    """Return a name beside a target that is hidden until it is renamed, and swept if nobody holds it."""
    name = f"{HIDDEN}{os.urandom(8).hex()}{TEMPORARY_SUFFIX}"
    return os.path.join(os.path.dirname(target), name)


def make_folders(folder: str) -> list[str]:
    """Make a folder and its parents, each durable in its own parent; return those that were made, outermost first."""
    missing, made = [], []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # made by another process meanwhile
            os.mkdir(path)
            made.append(path)
        sync_folder(os.path.dirname(path))
    return made


def write_new(path: str, data: bytes, mode: int) -> None:
    """Write a small file durably that is not there yet, with these permissions from its first moment.

    Raises:
        FileExistsError: if there is one.

    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        sync_file(descriptor)
    sync_folder(os.path.dirname(path))


def sync_file(descriptor: int) -> None:
    """Have the disk itself keep the file: macOS's fsync stops at the drive's cache."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def sync_folder(folder: str) -> None:
    """Have the disk keep the names in a folder."""
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
