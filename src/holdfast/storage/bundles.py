"""Bundles: folders of several files that appear, are replaced and go as one.

A bundle is written in a hidden folder beside its name, its draft, by as many processes as it has files. Once all of
them are durable, the folder is synced, renamed and its parent synced. A folder cannot be renamed over another one
that has something in it: there the two names are exchanged in one step, and the old folder is removed under the
hidden name. Where the system has no such step, the old one is renamed first, to a hidden name that says whose place
it had: what a crash leaves between the two renames, a sweep puts back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from holdfast.storage.contract import HIDDEN, PLAIN, PLAIN_FILES, SEAL
from holdfast.storage.durable import make_folders, sync_folder, temporary_name
from holdfast.storage.listing import TEMPORARY_SUFFIX, is_bundle, seal_of
from holdfast.storage.locks import ANYTHING, close, if_abandoned, lock_for_life, unlock
from holdfast.storage.marks import draw

if TYPE_CHECKING:
    from holdfast.storage.local import LocalStore

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
_HERE, _EXCHANGE, _SWAP = -100, 2, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h; RENAME_SWAP of macOS's stdio.h
_WAS = re.compile(re.escape(HIDDEN) + r"[0-9a-f]+\.was-(.+)" + re.escape(TEMPORARY_SUFFIX), re.DOTALL)
FOREIGN = "a folder is there that no holdfast has made, and it is not replaced: move it away"
UNSEALED = f"a bundle without {SEAL} would not be seen"


class LocalDraft:
    """A bundle on its way: see ``Draft``. The folder is locked while this process lives, or until it is settled."""

    def __init__(self, store: LocalStore, name: str, mark: str = "") -> None:
        """Make the folder, and those above it."""
        self._store = store
        self.mark = mark or draw()
        self._target = store.path(name)
        make_folders(os.path.dirname(self._target))
        self._path, self._descriptor = _locked_folder(self._target)
        self._done = False
        self.folder = os.path.relpath(self._path, store.root).replace(os.sep, "/")

    def add(self, name: str, data: bytes) -> None:
        """Put a file."""
        self._store.put(f"{self.folder}/{name}", (data,))

    def settle(self, sizes: Mapping[str, int] | None = None, gate: Callable[[], None] | None = None) -> None:
        """Have the disk keep the names of the files, and then the bundle's own."""
        del sizes  # what a filesystem has taken, it has
        if seal_of(self._path) is None:
            raise OSError(errno.EINVAL, UNSEALED, self._target)
        if gate is not None:
            gate()
        sync_folder(self._path)
        replace_bundle(self._path, self._target)
        self._let_go()

    def drop(self) -> None:
        """Remove the folder; what cannot be removed now is for a sweep."""
        if not self._done:
            with contextlib.suppress(OSError):
                remove_tree(self._path)
            self._let_go()

    def _let_go(self) -> None:
        self._done = True
        unlock(self._descriptor)
        close(self._descriptor)


def _locked_folder(target: str) -> tuple[str, int]:
    while True:
        path = temporary_name(target)
        os.mkdir(path)
        try:
            descriptor = os.open(path, _FOLDER)
        except FileNotFoundError:  # a sweep took it between its making and its opening
            continue
        if lock_for_life(descriptor) and os.path.isdir(path):
            return path, descriptor
        close(descriptor)


def replace_bundle(made: str, target: str) -> None:
    """Give a file or a folder its name, in the place of what has it; on return that survives a power cut.

    Raises:
        OSError: if what has the name is a folder of others; nothing has changed then.

    """
    above, old = os.path.dirname(target), ""
    try:
        os.rename(made, target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        _check_replaceable(target)
        old = made if _exchange(made, target) else _step_aside(made, target)
    sync_folder(above)
    if old:  # only now: until here a crash may bring it back
        with contextlib.suppress(OSError):  # the new one is committed: what is left is for a sweep
            remove_tree(old)


def _check_replaceable(target: str) -> None:
    status = os.lstat(target)
    if stat.S_ISDIR(status.st_mode) and not (is_bundle(target) or _is_plain(target)):
        raise IsADirectoryError(errno.EISDIR, FOREIGN, target)


def _is_plain(folder: str) -> bool:
    """Tell whether a folder has a checkpoint without a seal in it, and nothing else: logs beside it would be lost."""
    names = os.listdir(folder)
    return PLAIN in names and all(map(PLAIN_FILES.fullmatch, names))


def _exchange(one: str, other: str) -> bool:
    """Exchange two names in one step; False where the system or the filesystem cannot."""
    import ctypes  # noqa: PLC0415 - slow to import, for those who only sweep

    libc = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        result = libc.renamex_np(first, second, _SWAP)
    elif hasattr(libc, "renameat2"):
        result = libc.renameat2(_HERE, first, _HERE, second, _EXCHANGE)
    else:
        return False
    number = ctypes.get_errno() if result else 0
    if number and number not in _NO_EXCHANGE:
        raise OSError(number, os.strerror(number), one, None, other)
    return not number


def _step_aside(made: str, target: str) -> str:
    """Rename what has the name, and then what is to have it; return the hidden name of the old one.

    Held against sweeps meanwhile. Whichever of the two renames a crash leaves, one of the two bundles is under its
    name, or a sweep puts it back.
    """
    above, name = os.path.split(target)
    old = os.path.join(above, f"{HIDDEN}{os.urandom(8).hex()}.was-{name}{TEMPORARY_SUFFIX}")
    with contextlib.ExitStack() as held:
        if not os.path.islink(target):  # a link cannot be held, and no sweep takes one
            descriptor = os.open(target, ANYTHING)
            held.callback(close, descriptor)
            held.callback(unlock, descriptor)
            lock_for_life(descriptor)
        os.rename(target, old)
        try:
            os.rename(made, target)
        except BaseException:
            os.rename(old, target)
            raise
        return old


def link_bundle(store: LocalStore, source: str, target: str) -> str:
    """Make a bundle of second names of the files of another, in its own folder."""
    origin, goal = store.path(source), store.path(target)
    if is_bundle(goal) and os.path.samefile(os.path.join(origin, SEAL), os.path.join(goal, SEAL)):
        return "hard link"
    draft, how = LocalDraft(store, target), "hard link"
    try:
        for item in sorted(os.scandir(origin), key=lambda item: item.name):
            if item.is_file(follow_symlinks=False):
                how = _second_name(store, f"{source}/{item.name}", f"{draft.folder}/{item.name}", how)
        draft.settle()
    finally:
        draft.drop()
    return how


def _second_name(store: LocalStore, source: str, target: str, how: str) -> str:
    """Make a hard link, where those before were; else another file."""
    if how == "hard link":
        try:
            os.link(store.path(source), store.path(target))
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno == errno.ENOSPC:
                raise
        else:
            return how
    return store.clone(source, target)


def remove_bundle(path: str) -> None:
    """Take a bundle's name away, durably, and then remove it: a crash leaves it whole, or hidden for a sweep."""
    hidden = temporary_name(path)
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, hidden)
        sync_folder(os.path.dirname(path))
        remove_tree(hidden)


def remove_tree(name: str, within: int | None = None) -> None:
    """Remove a file, or a folder with all that is in it; no link is followed. What is gone already is no error."""
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=within)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=within)
        return
    try:
        for item in list(os.scandir(descriptor)):
            remove_tree(item.name, descriptor)
    finally:
        close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=within)


def sweep_away(path: str) -> bool:
    """Remove a temporary file or a draft whose writer is gone; tell whether it was.

    What stepped aside for another that never came gets its name back instead.
    """

    def remove(mode: int) -> bool:
        if _put_back(path):
            return False
        if stat.S_ISDIR(mode) or _WAS.fullmatch(os.path.basename(path)):
            sync_folder(os.path.dirname(path))  # it may be what another has just replaced, and not yet for good
        remove_tree(path)
        return True

    return if_abandoned(path, remove)


def _put_back(path: str) -> bool:
    above, name = os.path.split(path)
    was = _WAS.fullmatch(name)
    if was is None or os.path.lexists(os.path.join(above, was[1])):
        return False
    os.rename(path, os.path.join(above, was[1]))
    sync_folder(above)
    return True
