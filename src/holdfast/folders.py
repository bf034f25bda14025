"""The files of one directory, on this machine or behind a URL, as those see them who read a checkpoint of several.

They are of one and the same checkpoint: a directory of this machine is held open, wherever its name goes. Behind a URL
the seal is read when it is opened, and tells at any time whether it still is the one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from holdfast.format.manifest import LONGEST
from holdfast.source import BlobSource, FileSource
from holdfast.storage import SEAL, Store, open_regular, open_store, plain_path, split_path
from holdfast.storage.marks import alias, mark_of

_GUESS = 1 << 16  # bytes that most manifests have

FolderSource = FileSource | BlobSource


class Folder(Protocol):
    """A directory that is open."""

    @property
    def path(self) -> str:
        """The directory's path or URL."""
        ...

    def file(self, name: str) -> str:
        """Return the path or URL of one of its files."""
        ...

    def names(self) -> list[str]:
        """Return the names of all that is in it."""
        ...

    def opened(self, name: str) -> AbstractContextManager[FolderSource]:
        """Open one of its files.

        Raises:
            FileNotFoundError: if it is not there, or is a pipe or a device.
            IsADirectoryError: if a directory is.
            OSError: if it cannot be read.

        """
        ...

    def is_still_there(self) -> bool:
        """Tell whether its name still leads to it."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A directory of this machine."""

    path: str
    descriptor: int

    def file(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.path, name)

    def names(self) -> list[str]:
        """List it."""
        return os.listdir(self.descriptor)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[FileSource]:
        """Open a file in it."""
        with open_regular(name, self.descriptor) as file:
            yield FileSource(self.file(name), file)

    def is_still_there(self) -> bool:
        """Tell whether the same directory has its name."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


class RemoteFolder:
    """What stands at a URL and a slash: one listing, and the seal. Raises FileNotFoundError if that is nothing."""

    def __init__(self, store: Store, name: str) -> None:
        """Look what is there."""
        self._store, self._name = store, name
        self.path = store.path(name)
        self._seal = self._read_seal()  # before the listing, which then has all that it names, or what replaced it
        self._files = {blob.name: blob for blob in store.files(name)}
        if not self._files or not (self._seal or not any(map(mark_of, self._files))):  # nothing, or nothing committed
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)

    def _read_seal(self) -> bytes:
        data, length = b"", _GUESS
        with contextlib.suppress(FileNotFoundError):
            while len(data) < LONGEST:
                block = self._store.read(f"{self._name}/{SEAL}", len(data), length)
                data += block
                if len(block) < length:
                    break
                length *= 8
        return data

    def file(self, name: str) -> str:
        """Return the URL of a file."""
        return self._store.path(f"{self._name}/{name}")

    def names(self) -> list[str]:
        """Return the names that the files have, or are about to get."""
        return sorted(self._files.keys() - self._waiting.keys() | {*self._waiting.values()})

    @cached_property
    def _waiting(self) -> dict[str, str]:
        """The names of files that the seal's own have not been put in the place of yet, and which they get."""
        found = ((alias(name, self._seal), name) for name in {name.rpartition(".holdfast-")[0] for name in self._files})
        return {waits: name for waits, name in found if waits in self._files}

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[BlobSource]:
        """Open one: no request, but to find out that it is missing."""
        waits = alias(name, self._seal)
        if name == SEAL and self._seal:
            yield _Known(self._store, f"{self._name}/{name}", len(self._seal), self._seal)
            return
        if waits in self._files:
            with contextlib.suppress(FileNotFoundError):  # it has got its name by now
                yield self._blob(waits, self._store.size(f"{self._name}/{waits}"))
                return
        known = self._files.get(name) if waits not in self._files else None
        yield self._blob(name, self._store.size(f"{self._name}/{name}") if known is None else known.size)

    def _blob(self, name: str, size: int) -> BlobSource:
        return BlobSource(self._store, f"{self._name}/{name}", size)

    def is_still_there(self) -> bool:
        """Tell whether the same seal is there; without one, the same files."""
        try:
            if self._seal:
                return self._read_seal() == self._seal
            return {blob.name: blob.stamp for blob in self._store.files(self._name)} == {
                blob.name: blob.stamp for blob in self._files.values()
            }
        except OSError:
            return True  # who cannot ask does not know better

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class _Known(BlobSource):
    """A blob that has been read."""

    data: bytes = b""

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of it."""
        return self.data[offset : offset + length]

    def read_into(self, offset: int, view: memoryview) -> int:
        """Copy a part of it."""
        data = self.data[offset : offset + len(view)]
        view[: len(data)] = data
        return len(data)


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """Open a directory by its path or URL.

    Raises:
        FileNotFoundError: if there is none; behind a URL also where there is nothing committed in it.
        NotADirectoryError: if it is a file.
        OSError: if it cannot be opened.

    """
    root, name = split_path(path)
    store = open_store(root)
    if not store.is_local:
        return RemoteFolder(store, name)
    place = plain_path(os.fspath(path))
    return LocalFolder(place, os.open(store.path(name), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
