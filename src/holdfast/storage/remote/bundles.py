"""Bundles behind a URL: keys that begin with one name and a slash, made one blob by the seal among them.

Without a seal there is nothing: files that have a ``mark`` and no seal beside them are of a save under way, or of one
that died. With a seal there may be more than it names: what a save under way has sent that is to replace it, and what
an interrupted one has left.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from holdfast.storage.contract import HIDDEN, PLAIN_FILES, SEAL, Blob
from holdfast.storage.marks import alias, mark_of, without
from holdfast.storage.remote.objects import Listed

Listing = Sequence[tuple[str, Listed]]  # by name, relative to the root

_OWN = "holdfast."  # how the names of our own small files begin
_NO_BUNDLE = (".sig",)  # how names end that no bundle has: their removal need not ask

_QUOTED = re.compile(rb'"([^"/]{1,255})"')

_living: set[str] = set()  # marks of the drafts of this process
_none: set[str] = set()  # keys, in prefixes that this process has, of which it is known that no bundle has them
_guard = threading.Lock()


def begin(mark: str) -> None:
    """Keep the files with a mark from sweeps of this process."""
    with _guard:
        _living.add(mark)


def end(mark: str) -> None:
    """Keep them no longer."""
    with _guard:
        _living.discard(mark)


def note_none(key: str) -> None:
    """Take note that there is no bundle of this key; for prefixes where nobody else can make one."""
    with _guard:
        _none.add(key)


def note_some(key: str) -> None:
    """Take note that there may be one, or soon."""
    with _guard:
        _none.discard(key)


def has_none(key: str) -> bool:
    """Tell whether that was noted, and no draft of this process has begun there since."""
    with _guard:
        return key in _none


def is_living(mark: str) -> bool:
    """Tell whether a draft of this process has a mark."""
    with _guard:
        return mark in _living


def is_ours(file: str) -> bool:
    """Tell whether a file in a folder is one that a checkpoint consists of, by its name alone."""
    return bool(mark_of(file) or PLAIN_FILES.fullmatch(file)) or file.startswith(_OWN)


def names(seal: bytes, file: str) -> bool:
    """Tell whether a seal names a file. It has the names in quotes, whatever else is in it."""
    return f'"{file}"'.encode() in seal


def named_in(seal: bytes) -> set[str]:
    """Return the files of data that a seal names: those that a bundle would not be whole without."""
    found = (quoted.decode("utf-8", "replace") for quoted in _QUOTED.findall(seal))
    return {name for name in found if mark_of(name) or PLAIN_FILES.fullmatch(name)}


def may_be_bundle(name: str) -> bool:
    """Tell whether a name can be that of a bundle."""
    return f"/{HIDDEN}" not in f"/{name}" and not name.endswith(_NO_BUNDLE)


@dataclass
class Folder:
    """What stands in one folder: the files right in it, by their names there."""

    name: str
    files: dict[str, Listed] = field(default_factory=dict)

    @property
    def seal(self) -> Listed | None:
        """The seal, if there is one."""
        return self.files.get(SEAL)

    @property
    def marks(self) -> set[str]:
        """The marks that its files have."""
        return {mark for mark in map(mark_of, self.files) if mark}

    @property
    def is_draft(self) -> bool:
        """Whether somebody has written here, or still does, and nothing is committed."""
        return self.seal is None and bool(self.marks)


def folders_of(listing: Listing) -> dict[str, Folder]:
    """Return what lies in folders, each with what is right in it."""
    found: dict[str, Folder] = {}
    for name, item in listing:
        folder, slash, file = name.rpartition("/")
        if slash:
            found.setdefault(folder, Folder(folder)).files[file] = item
    return found


def fold(listing: Listing, depth: int) -> list[Blob]:
    """Return the blobs of a listing of everything, bundles as one each, at most ``depth`` folders down."""
    folders = folders_of(listing)
    sealed = {name: folder.seal for name, folder in folders.items() if folder.seal is not None and may_be_bundle(name)}
    blobs = []
    for name, item in listing:
        folder, _, file = name.rpartition("/")
        inside = any(above in sealed for above in _above(name)) if sealed else False
        draft = folder in folders and folders[folder].is_draft and is_ours(file)
        if name in sealed and not inside and is_newer(item, sealed[name]):
            del sealed[name]  # a file has taken the place of a bundle
        elif inside or draft or name in sealed:
            continue
        blobs.append(Blob(name, item.size, stamp=item.etag))
    outer = ((name, seal) for name, seal in sealed.items() if not any(above in sealed for above in _above(name)))
    blobs += [Blob(name, seal.size, bundle=True, stamp=seal.etag) for name, seal in outer]
    return sorted((blob for blob in blobs if blob.name.count("/") <= depth), key=lambda blob: blob.name)


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def is_newer(file: Listed, seal: Listed) -> bool:
    """Tell whether a file has taken the place of the bundle that is there, too; where both are of one second, not yet.

    Whoever puts a file removes the bundle before it says that it is there.
    """
    return file.modified is not None and seal.modified is not None and file.modified > seal.modified


@dataclass(frozen=True)
class Remains:
    """What is in a folder and in no commit.

    Attributes:
        folder: the folder's name.
        files: the names of the files in it.
        mark: of the save that they are of.
        newest: when the last of them was written; None where that cannot be told.
        whole: whether there is nothing else in the folder: no seal.

    """

    folder: str
    files: tuple[str, ...]
    mark: str
    newest: datetime | None
    whole: bool

    @property
    def names(self) -> list[str]:
        """What a listing of leftovers says of them."""
        return [self.folder] if self.whole else [f"{self.folder}/{file}" for file in self.files]

    def is_dead(self, before: datetime | None) -> bool:
        """Tell whether nobody writes them any more: no draft of this process, and all older than that time."""
        return not is_living(self.mark) and self.newest is not None and before is not None and self.newest < before


def remains(listing: Listing, read: Callable[[str], bytes]) -> Iterator[Remains]:
    """Yield what saves have left or still write, save by save; a seal is read only where there is more than one."""
    for name, folder in folders_of(listing).items():
        marks = folder.marks
        if not marks or (folder.seal is not None and len(marks) == 1):
            continue
        seal = b""
        if folder.seal is not None:
            try:
                seal = read(f"{name}/{SEAL}")
            except FileNotFoundError:  # just removed
                continue
        for mark in sorted(marks):
            loose = [file for file in folder.files if mark_of(file) == mark and not _counts(file, seal)]
            if folder.seal is None and len(marks) == 1:
                loose = [file for file in folder.files if is_ours(file)]
            if loose:
                times = [folder.files[file].modified for file in loose]
                known = [time for time in times if time is not None]
                newest = max(known) if len(known) == len(times) else None
                yield Remains(name, tuple(sorted(loose)), mark, newest, whole=folder.seal is None)


def _counts(file: str, seal: bytes) -> bool:
    return bool(seal) and (names(seal, file) or is_waiting(file, seal))


def is_waiting(file: str, seal: bytes) -> bool:
    """Tell whether a file is one that waits for its own name, for the bundle with this seal."""
    return file == alias(without(file), seal)
