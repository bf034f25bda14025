"""What stands in the folders of this machine: the blobs, and beside them what is hidden from a listing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from holdfast.storage.contract import HIDDEN, NO_BLOB, SEAL, Blob

TEMPORARY_SUFFIX = ".tmp"
_WITHIN = 1  # folders inside a hidden folder


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that a writer has not finished, by its name without the folder."""
    return name.startswith(HIDDEN) and name.endswith(TEMPORARY_SUFFIX)


def walk(
    folder: str, prefix: str, depth: int, odd: dict[str, str] | None = None, *, hidden: bool = False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield all that is no folder, and each bundle, with its name, at most ``depth`` folders down.

    Args:
        folder: where to begin.
        prefix: the names' beginning, with its slash.
        depth: 0 for the folder alone.
        odd: takes the name of each folder below that cannot be read, with the reason. Without it that is an error.
        hidden: also what lies in hidden folders, wherever one stands; and drafts, as one.

    """
    try:
        found = _scan(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if odd is None or not prefix:
            raise
        odd[prefix.rstrip("/")] = error.strerror or str(error)
        return
    for item in found:
        if not item.is_dir(follow_symlinks=False):
            yield prefix + item.name, item
        elif item.name.startswith(HIDDEN) and not hidden:
            continue
        elif is_temporary(item.name) or seal_of(item.path) is not None:
            yield prefix + item.name, item
        elif item.name.startswith(HIDDEN):
            yield from walk(item.path, f"{prefix}{item.name}/", _WITHIN, odd, hidden=True)
        elif depth > 0:
            yield from walk(item.path, f"{prefix}{item.name}/", depth - 1, odd, hidden=hidden)


def seal_of(path: str) -> os.stat_result | None:
    """Return what is known of the seal of the bundle that stands at a path; None if no bundle does."""
    try:
        status = os.lstat(os.path.join(path, SEAL))
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def is_bundle(path: str) -> bool:
    """Tell whether a bundle itself stands at a path, and no link to one."""
    return not os.path.islink(path) and seal_of(path) is not None


def size_of(path: str) -> int:
    """Return the bytes of a file, or of the files in a folder; links in it count nothing."""
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        return status.st_size
    inside = (item.stat(follow_symlinks=False) for item in _scan(path) if item.is_file(follow_symlinks=False))
    return sum(each.st_size for each in inside)


def blob_of(name: str, item: os.DirEntry[str]) -> Blob:
    """Return a file or a bundle as a blob.

    Raises:
        FileNotFoundError: if it has been removed since the listing.

    """
    seal = seal_of(item.path) if item.is_dir() else None
    status = item.stat() if seal is None else seal
    return Blob(name, status.st_size, f"{status.st_dev}:{status.st_ino}", bundle=seal is not None)


def why_no_file(item: os.DirEntry[str]) -> str:
    """Say why an entry is no regular file or bundle, nor a link to one; "" if it is."""
    try:
        if item.is_file() or (item.is_dir() and seal_of(item.path) is not None):
            return ""
        if not item.is_symlink():
            return "what stands there is a pipe, a device or a socket, and no file"
        return "a link to a folder or a device" if os.path.exists(item.path) else "a link that leads nowhere"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link that leads back to itself"
        return error.strerror or str(error)


def files_in(folder: str) -> list[Blob]:
    """Return the files right in a folder by their names in it, and links to files; none if it is not there."""
    try:
        found = _scan(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    blobs = []
    for item in found:
        with contextlib.suppress(FileNotFoundError):  # removed since the listing
            if item.is_file():
                blobs.append(Blob(item.name, item.stat().st_size))
    return sorted(blobs, key=lambda blob: blob.name)


def folders(root: str, prefix: str, depth: int) -> Iterator[str]:
    """Yield the beginnings of the names in each folder, at most ``depth`` down: "" for the root's own."""
    yield prefix
    if depth <= 0:
        return
    for item in _entries(root):
        if item.is_dir(follow_symlinks=False) and not item.name.startswith(HIDDEN) and seal_of(item.path) is None:
            yield from folders(item.path, f"{prefix}{item.name}/", depth - 1)


def hidden_folders(root: str, depth: int) -> Iterator[str]:
    """Yield the paths of the hidden folders and of those in them, inner ones first; empty or not. No drafts."""
    for prefix in folders(root, "", depth):
        for item in _entries(os.path.join(root, prefix)):
            if item.name.startswith(HIDDEN) and not is_temporary(item.name) and item.is_dir(follow_symlinks=False):
                yield from (inner.path for inner in _entries(item.path) if inner.is_dir(follow_symlinks=False))
                yield item.path


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """List a folder. A signal amid its opening is no error; Python itself repeats ``open``, and not this (PEP 475)."""
    while True:
        with contextlib.suppress(InterruptedError):
            return list(os.scandir(folder))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        return _scan(folder)
    except OSError:  # gone, or not to be read: whatever asks for its blobs says so
        return []


def within(root: str, name: str) -> Iterator[Blob]:
    """Yield what stands in a hidden folder, and in those in it; no link is followed, of any kind.

    The folder may also be one in a hidden one: then there is none further in.
    """
    return _within(root, name, _WITHIN - name.rpartition(HIDDEN)[2].count("/"))


def _within(root: str, name: str, levels: int) -> Iterator[Blob]:
    path = os.path.join(root, name)
    try:
        if not _is_own_folder(path, root):
            yield Blob(name, NO_BLOB)
            return
        found = _scan(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield Blob(name, NO_BLOB)
        return
    for item in found:
        inner = f"{name}/{item.name}"
        if item.is_dir(follow_symlinks=False) and levels > 0:
            yield from _within(root, inner, levels - 1)
        elif not is_temporary(item.name):
            yield from _one(inner, item)


def _is_own_folder(path: str, root: str) -> bool:
    """Tell whether a folder is one, and so are the hidden ones above it, and none of them a link."""
    above = os.path.dirname(path)
    if len(above) > len(root) and os.path.basename(above).startswith(HIDDEN) and not _is_own_folder(above, root):
        return False
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _one(name: str, item: os.DirEntry[str]) -> Iterator[Blob]:
    try:
        is_file = item.is_file(follow_symlinks=False)
        yield Blob(name, item.stat(follow_symlinks=False).st_size if is_file else NO_BLOB)
    except FileNotFoundError:  # removed since the listing
        return
    except OSError:
        yield Blob(name, NO_BLOB)
