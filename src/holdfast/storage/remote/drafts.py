"""Writing a bundle where nothing can be renamed: its files, and then, in one request, the seal that makes it true.

The large files stand under their own, ``marked``, names from the beginning. Those whose names every bundle has would
be in the way of the bundle that is replaced: they wait under an ``alias`` that only those look for who have read the
new seal, and get their own names after it. So who reads the seal first sees the old bundle or the new one; and so does
who only knows ``.metadata``: all that the old one names is removed last.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from holdfast.storage.contract import SEAL
from holdfast.storage.marks import alias, draw, mark_of, without
from holdfast.storage.remote import bundles
from holdfast.storage.remote.bundles import Folder, Listing
from holdfast.storage.remote.objects import Listed

if TYPE_CHECKING:
    from holdfast.storage.remote.store import RemoteStore

log = logging.getLogger("holdfast")

_UNSEALED = f"a bundle without {SEAL} would not be seen"
_FOREIGN = "files are there that no holdfast has made, and they are not taken for a checkpoint's: move them away"
_SAME_NAMES = "the checkpoint there has a file of the same name, saved before each save had names of its own: remove it"


class RemoteDraft:
    """A bundle on its way: see ``Draft``."""

    def __init__(self, store: RemoteStore, name: str, mark: str = "") -> None:
        """Begin; no request."""
        self.folder = name
        self.mark = mark or draw()
        self._store = store
        self._added: dict[str, bytes] = {}
        self._over = False  # settled, or dropped
        self._uncertain = False  # whether the seal may be there, or come to be
        bundles.begin(self.mark)
        bundles.note_some(store.key(name))

    def add(self, name: str, data: bytes) -> None:
        """Keep it until the rest is there."""
        self._added[name] = data

    def settle(self, sizes: Mapping[str, int] | None = None, gate: Callable[[], None] | None = None) -> None:
        """Look whether all is there, send the small files, then the seal; then make the folder what it is at rest.

        What fails after the seal is no error: the bundle is committed, and a later sweep ends it.
        """
        seal = self._added.get(SEAL)
        if seal is None:
            raise OSError(errno.EINVAL, _UNSEALED, self._path)
        there = with_seal(self._store, folder_at(self._store, self.folder))
        self._check(there, sizes or {})
        small = {name: data for name, data in self._added.items() if name != SEAL}
        replaces = there.seal is not None
        for name, data in small.items():
            self._put(alias(name, seal) if replaces else name, data)
        self._put(SEAL, seal, self._gate(gate))
        self._end()
        try:
            if replaces:
                for name, data in small.items():
                    self._put(name, data)
            self._clear(there, seal)
        except OSError as error:
            log.warning("%s is committed, but the files of the one before it are still there: %s", self._path, error)

    def drop(self) -> None:
        """Remove what was sent, unless a seal names it or may come to; what cannot be removed is for a sweep."""
        if self._over:
            return
        self._end()
        if self._uncertain:
            return
        try:
            there = with_seal(self._store, folder_at(self._store, self.folder))
            seal = b"" if there.seal is None else read_all(self._store, f"{self.folder}/{SEAL}")
            mine = {alias(name, self._added[SEAL]) for name in self._added} if SEAL in self._added else set()
            loose = [file for file in there.files if file in mine or (self.mark and mark_of(file) == self.mark)]
            if there.seal is None:
                loose += [file for file in self._added if file in there.files]
            self._remove(file for file in loose if not bundles.names(seal, file))
        except Exception as error:  # noqa: BLE001 - the error that brought us here is the one to tell
            log.debug("what was sent of %s is still there: %s", self._path, error)

    @property
    def _path(self) -> str:
        return self._store.path(self.folder)

    def _end(self) -> None:
        self._over = True
        bundles.end(self.mark)
        bundles.note_some(self._store.key(self.folder))

    def _gate(self, gate: Callable[[], None] | None) -> Callable[[], None]:
        def pass_gate() -> None:
            if gate is not None:
                gate()
            self._uncertain = True

        return pass_gate

    def _put(self, name: str, data: bytes, gate: Callable[[], None] | None = None) -> None:
        self._store.put(f"{self.folder}/{name}", (data,), gate=gate)

    def _remove(self, files: Iterable[str]) -> None:
        keys = [self._store.key(f"{self.folder}/{file}") for file in files]
        if keys:
            self._store.objects.remove(keys)

    def _check(self, there: Folder, sizes: Mapping[str, int]) -> None:
        """See that the server has what was sent, and that nobody else's files would become part of it.

        Raises:
            OSError: if not.

        """
        for name, size in sizes.items():
            found = there.files.get(name)
            if found is None or found.size != size:
                has = "is not there" if found is None else f"has {found.size} bytes there"
                msg = f"{name} was sent with {size} bytes, and {has}: do all ranks write to the same place?"
                raise OSError(errno.EIO, msg, self._path)
        if there.seal is None and not all(map(bundles.is_ours, there.files)):
            raise IsADirectoryError(errno.EISDIR, _FOREIGN, self._path)

    def _clear(self, there: Folder, seal: bytes) -> None:
        """Remove what this bundle has replaced, and what waited; not what another save has just begun to send."""
        old = there.seal
        gone = [alias(name, seal) for name in self._added if name != SEAL] if old is not None else []
        for file, item in there.files.items():
            kept = file == SEAL or bundles.names(seal, file) or _younger(file, item, old)
            if bundles.is_ours(file) and not kept:
                gone.append(file)
        self._remove(gone)
        remove_file(self._store, self.folder)


def _younger(file: str, item: Listed, seal: Listed | None) -> bool:
    """Tell whether a marked file came after the bundle that it lies in: it is of another save, which may be alive."""
    if not mark_of(file) or seal is None or item.modified is None or seal.modified is None:
        return False
    return item.modified > seal.modified


def folder_at(store: RemoteStore, name: str) -> Folder:
    """Return what is right in a folder. One request for a thousand files."""
    start = len(store.key(name)) + 1
    found = ((item.key[start:], item) for item in store.objects.list(f"{store.key(name)}/", deep=False))
    return Folder(name, {file: item for file, item in found if file and "/" not in file})


def with_seal(store: RemoteStore, folder: Folder) -> Folder:
    """Add the seal where a listing does not show it and it is there: listings may be stale, a look at an object is not.

    What is committed would be taken for nothing, and its files for leftovers. One request where no seal is listed.
    """
    if folder.seal is None:
        key = store.key(f"{folder.name}/{SEAL}")
        with contextlib.suppress(FileNotFoundError):
            head = store.objects.head(key)
            folder.files[SEAL] = Listed(head.size, head.etag, head.modified, key)
    return folder


def read_all(store: RemoteStore, name: str) -> bytes:
    """Return the bytes of a small object: what is removed, and what is copied, goes by them.

    They are what the server's etag says, or where that is no MD5, what came twice.

    Raises:
        ConnectionError: if they cannot be trusted.

    """
    key = store.key(name)
    head = store.objects.head(key)
    data = store.objects.get(key, 0, head.size) if head.size else b""
    if len(data) == head.size and hashlib.md5(data, usedforsecurity=False).hexdigest() == head.etag:
        return data
    if len(data) != head.size or store.objects.get(key, 0, head.size) != data:
        raise ConnectionError(errno.EIO, "it has changed while it was read, or came wrong", store.path(name))
    return data


def link_bundle(store: RemoteStore, source: str, target: str) -> None:
    """Make a bundle of copies of another's files, made on the server's side; nothing where they are there already.

    Raises:
        FileNotFoundError: if the source is none.
        FileExistsError: if a file would have to be written over that the target's own seal names.

    """
    origin = with_seal(store, folder_at(store, source))
    if origin.seal is None:
        raise FileNotFoundError(errno.ENOENT, "there is no checkpoint", store.path(source))
    seal, goal = read_all(store, f"{source}/{SEAL}"), with_seal(store, folder_at(store, target))
    there = goal.seal is not None and goal.seal.size == len(seal) and read_all(store, f"{target}/{SEAL}") == seal
    named = {file: item for file, item in origin.files.items() if bundles.names(seal, file)}
    if unseen := sorted(bundles.named_in(seal) - named.keys()):
        msg = f"{unseen[0]} is not listed there: the listing is stale, or the file is gone"
        raise OSError(errno.EIO, msg, store.path(source))
    if there and all(file in goal.files for file in named):
        return
    draft = RemoteDraft(store, target, next((mark_of(file) for file in named if mark_of(file)), ""))
    try:
        sizes = {}
        for file, item in named.items():
            if mark_of(file) or file.endswith(".distcp"):
                check_names(goal, file, store.path(target))
                store.objects.copy(store.key(f"{source}/{file}"), store.key(f"{target}/{file}"))
                sizes[file] = item.size
            else:
                waiting = alias(file, seal)
                draft.add(file, read_all(store, f"{source}/{waiting if waiting in origin.files else file}"))
        draft.add(SEAL, seal)
        draft.settle(sizes)
    finally:
        draft.drop()


def check_names(goal: Folder, file: str, path: str) -> None:
    """See that a file with a name that other saves have, too, is not written over one of a committed bundle.

    Raises:
        FileExistsError: if it would be.

    """
    if goal.seal is not None and not mark_of(file) and file in goal.files:
        raise FileExistsError(errno.EEXIST, f"{file}: {_SAME_NAMES}", path)


def remove_file(store: RemoteStore, name: str) -> None:
    """Remove the single file whose name a bundle has got: object stores take both."""
    try:
        store.objects.head(store.key(name))
    except FileNotFoundError:
        return
    store.objects.remove([store.key(name)])


def sweep_bundles(store: RemoteStore, listing: Listing, before: datetime | None) -> list[str]:
    """Remove what saves have left that ended before some time, and end what they have left undone; return the names."""
    gone = []
    for left in bundles.remains(listing, lambda name: read_all(store, name)):
        if left.is_dead(before):
            store.objects.remove([store.key(f"{left.folder}/{file}") for file in left.files])
            gone += left.names
    for name, folder in bundles.folders_of(listing).items():
        if folder.seal is not None and len(folder.marks) > 1:
            gone += _mend(store, folder, before, name)
    return gone


def _mend(store: RemoteStore, folder: Folder, before: datetime | None, name: str) -> list[str]:
    """Give the files that wait in a bundle their own names."""
    try:
        seal = read_all(store, f"{name}/{SEAL}")
    except FileNotFoundError:  # just removed
        return []
    found = [file for file, item in folder.files.items() if _is_older(item, before)]
    waiting = [file for file in found if bundles.is_waiting(file, seal)]
    for file in waiting:
        store.put(f"{name}/{without(file)}", (read_all(store, f"{name}/{file}"),))
    if waiting:
        store.objects.remove([store.key(f"{name}/{file}") for file in waiting])
    return [f"{name}/{file}" for file in waiting]


def _is_older(item: Listed, before: datetime | None) -> bool:
    return item.modified is not None and before is not None and item.modified < before
