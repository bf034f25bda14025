"""Files of this machine. With ``durable`` and ``bundles`` the only ``fsync`` and ``rename`` of checkpoints."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.storage.contract import SEAL, Blob, Chunks, Free
from holdfast.storage.durable import (
    commit_temporary,
    make_folders,
    sync_file,
    sync_folder,
    take_place,
    temporary_beside,
    temporary_name,
)
from holdfast.storage.listing import (
    blob_of,
    files_in,
    folders,
    hidden_folders,
    is_bundle,
    is_temporary,
    seal_of,
    size_of,
    walk,
    why_no_file,
    within,
)
from holdfast.storage.locks import RUN_LOCK, hold, keep_from_sweeps, unlock
from holdfast.storage.paths import no_dots, plain_path
from holdfast.storage.regular import open_regular
from holdfast.storage.room import free_in

if TYPE_CHECKING:
    from holdfast.storage.bundles import LocalDraft

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]

_FICLONE = 0x40049409  # linux/fs.h
_BLOCK = 1 << 24  # bytes of a copy at a time
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)


@dataclass(frozen=True)
class LocalStore:
    """The files under one directory. The directory is made by the first write."""

    root: str

    @property
    def is_local(self) -> bool:
        """A local store is."""
        return True

    def path(self, name: str) -> str:
        """Return the file of a name. What has dots for a part is an ``OSError``."""
        return os.path.join(self.root, *no_dots(name).split("/"))

    def name_of(self, path: str) -> str | None:
        """Return the name of a file under the root; symbolic links of folders are followed."""
        folder, file = os.path.split(os.path.abspath(plain_path(path)))
        relative = os.path.relpath(os.path.join(os.path.realpath(folder), file), os.path.realpath(self.root))
        outside = relative.split(os.sep)[0] in (os.pardir, os.curdir)
        return None if outside else relative.replace(os.sep, "/")

    def blobs(self, depth: int = 0, odd: dict[str, str] | None = None) -> list[Blob]:
        """Return files and bundles, without temporaries of unfinished writes, the lock of a run, and what is hidden."""
        blobs = []
        for name, item in walk(self.root, "", depth, odd):
            if is_temporary(item.name) or item.name == RUN_LOCK:
                continue
            problem = why_no_file(item)
            if problem:
                if odd is not None:
                    odd[name] = problem
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since the listing
                blobs.append(blob_of(name, item))
        return sorted(blobs, key=lambda blob: blob.name)

    def files(self, folder: str) -> list[Blob]:
        """Return the files in a folder."""
        return files_in(self.path(folder))

    def hidden(self, folder: str, depth: int = 0) -> list[Blob]:
        """Return the files in the hidden folders of this name."""
        found = (blob for prefix in folders(self.root, "", depth) for blob in within(self.root, prefix + folder))
        return sorted(found, key=lambda blob: blob.name)

    def leftovers(self, depth: int = 0) -> list[str]:
        """Return the temporaries, files and drafts."""
        return sorted(name for name, item in walk(self.root, "", depth, {}, hidden=True) if is_temporary(item.name))

    def exists(self, name: str) -> bool:
        """Tell whether anything has this name; a dangling symbolic link does."""
        return os.path.lexists(self.path(name))

    def size(self, name: str) -> int:
        """Return the file's bytes, or those of the files in a folder."""
        return size_of(self.path(name))

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Return number, time of writing and bytes of a file or a seal; None if it is not there."""
        path = self.path(name)
        try:
            status = seal_of(path) or os.stat(path)
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_size)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read from the file."""
        with open_regular(self.path(name)) as file:
            return os.pread(file.fileno(), length, offset)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Read from the file into memory."""
        read = 0
        with open_regular(self.path(name)) as file:
            while read < len(view) and (more := os.preadv(file.fileno(), [view[read:]], offset + read)):
                read += more
        return read

    def put(
        self,
        name: str,
        chunks: Chunks,
        *,
        over: str = "",
        gate: Callable[[], None] | None = None,
        size: int = 0,
    ) -> int:
        """Write a file durably: on return it survives a power cut."""
        del size
        from holdfast.storage.blocks import BlockWriter  # noqa: PLC0415 - with ctypes: not for those who only look

        target = self.path(name)
        if not is_temporary(os.path.basename(os.path.dirname(target))):  # a draft that was dropped stays so
            make_folders(os.path.dirname(target))
        spare = self.path(over) if is_temporary(os.path.basename(over)) else ""  # nothing that has its name still
        with temporary_beside(target, spare) as (temporary, descriptor):
            with BlockWriter(descriptor, temporary) as writer:
                for chunk in chunks:
                    writer.feed(chunk)
                written = writer.finish()
            if gate is not None:
                gate()
            if spare:
                os.ftruncate(descriptor, written)
            commit_temporary(descriptor, temporary, target, written)
        return written

    def draft(self, name: str, mark: str = "") -> LocalDraft:
        """Begin a bundle: a hidden folder beside the target, locked while this process lives."""
        from holdfast.storage.bundles import LocalDraft  # noqa: PLC0415 - not for those who only look

        return LocalDraft(self, name, mark)

    def retire(self, name: str) -> str:
        """Take a file's name away and keep its blocks: for the next ``put(..., over=...)``, or to be removed.

        Only of a file that has no other name; any other is removed. Quick, as nothing waits for the
        disk: after a power cut the file may have its name again, until it is written over.
        """
        path = self.path(name)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                temporary = temporary_name(path)
                os.rename(path, temporary)
                return os.path.relpath(temporary, self.root).replace(os.sep, "/")
        self.remove(name)
        return ""

    def move(self, name: str, target: str) -> bool:
        """Rename a file or a bundle; on return the new name survives a power cut."""
        goal = self.path(target)
        if os.path.lexists(goal):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), goal)
        os.rename(self.path(name), goal)
        sync_folder(os.path.dirname(goal))
        return True

    def hold(self, name: str, *, alone: bool = False) -> contextlib.AbstractContextManager[bool]:
        """Hold a file, or a seal, under all of its names, by a lock that the kernel releases when the process ends."""
        path = self.path(name)
        return hold(path if seal_of(path) is None else os.path.join(path, SEAL), alone=alone)

    def link(self, source: str, target: str) -> str:
        """Give the bytes a second name: hard link, else reflink, else a copy."""
        origin, goal = self.path(source), self.path(target)
        if seal_of(origin) is not None:
            from holdfast.storage.bundles import link_bundle  # noqa: PLC0415 - not for those who only look

            return link_bundle(self, source, target)
        if os.path.lexists(goal) and not os.path.islink(goal) and os.path.samefile(origin, goal):
            return "hard link"  # rename between two links of one file would do nothing
        make_folders(os.path.dirname(goal))
        how = _hard_link(origin, goal) or self.clone(source, target)
        sync_folder(os.path.dirname(goal))
        return how

    def clone(self, source: str, target: str) -> str:
        """Write a second file with a file's bytes; on return its name is not durable yet."""
        with open(self.path(source), "rb") as origin, temporary_beside(self.path(target)) as made:
            temporary, descriptor = made
            how = "reflink" if _reflink(origin.fileno(), descriptor) else "copy"
            if how == "copy":
                with open(descriptor, "wb", closefd=False) as copy:
                    while block := origin.read(_BLOCK):
                        copy.write(block)
            sync_file(descriptor)
            take_place(temporary, self.path(target))
        return how

    def remove(self, name: str) -> None:
        """Remove a file or a bundle, and the folders below the root that it leaves empty; make the removal durable.

        Nothing waits for the disk where the file is only a temporary: a sweep would remove it as well.
        """
        path = self.path(name)
        if is_bundle(path):
            from holdfast.storage.bundles import remove_bundle  # noqa: PLC0415 - not for those who only look

            remove_bundle(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            if not is_temporary(os.path.basename(path)):
                sync_folder(os.path.dirname(path))
        for depth in range(name.count("/"), 0, -1):
            folder = os.path.join(self.root, *name.split("/")[:depth])
            try:
                os.rmdir(folder)
            except OSError:  # not empty, or gone
                return
            with contextlib.suppress(FileNotFoundError):  # another process has removed the one above it by now
                sync_folder(os.path.dirname(folder))

    def free(self) -> Free | None:
        """Ask the filesystem of the root, or of the nearest folder above it that is there."""
        return free_in(self.root)

    def sweep(self, depth: int = 0) -> list[str]:
        """Remove temporaries and drafts whose writers are gone; those of living writers stay."""
        from holdfast.storage.bundles import sweep_away  # noqa: PLC0415 - not for those who only look

        removed = []
        for name, item in walk(self.root, "", depth, hidden=True):
            if is_temporary(item.name) and sweep_away(item.path):
                removed.append(name)
        for folder in hidden_folders(self.root, depth):
            with contextlib.suppress(OSError):  # not empty, or gone; a writer that has only just made it tries again
                os.rmdir(folder)
        return removed


def _hard_link(origin: str, goal: str) -> str:
    """Link over the goal in one step; return "" where the filesystem has no hard links."""
    temporary = temporary_name(goal)
    with open(origin, "rb") as held:
        keep_from_sweeps(held.fileno())
        try:
            os.link(origin, temporary)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return ""
            raise
        try:
            take_place(temporary, goal)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            unlock(held.fileno())
    return "hard link"


def _reflink(origin: int, copy: int) -> bool:
    """Share the extents of two files where the filesystem can (btrfs, xfs)."""
    if fcntl is None:
        return False
    try:
        fcntl.ioctl(copy, _FICLONE, origin)
    except OSError:
        return False
    return True
