"""What changes a filesystem: names, bytes, lengths, and the syncs that make them durable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypeAlias

ROOT = 0  # the number of the folder in which all happens
EVERYTHING = -1  # in place of a number: a sync of the whole filesystem


class UnmodelledError(Exception):
    """The recording holds a call whose outcome after a power cut is not known here."""


@dataclass(frozen=True)
class Names:
    """Names that change in one step: each a folder, a name in it, and the inode it has now, or None."""

    edits: tuple[tuple[int, str, int | None], ...]
    is_folder: bool = False  # what is made is a folder


@dataclass(frozen=True)
class Data:
    """Bytes written to a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Length:
    """A file's length; ``only_more`` if it never becomes less by this."""

    inode: int
    length: int
    only_more: bool = False


@dataclass(frozen=True)
class Sync:
    """What this file's data, this folder's names, or ``EVERYTHING``, are from now on: durable."""

    inode: int


@dataclass(frozen=True)
class Mark:
    """What the process has said of itself."""

    text: str


What: TypeAlias = "Names | Data | Length | Sync | Mark"


@dataclass(frozen=True)
class Step:
    """One operation, with the beginning and the end of its call: a sync covers what had ended before it began."""

    what: What
    begun: int
    ended: int
    told: str

    @property
    def place(self) -> int:
        """When it may show first: data from the moment the call begins, all else when it has ended."""
        return self.begun if isinstance(self.what, (Data, Length)) else self.ended


@dataclass
class Folder:
    """The folder as it was when the recording began: all of it is taken to be durable."""

    names: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    contents: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str) -> Folder:
        """Read a folder of this machine."""
        found, numbers = cls(), {os.stat(path).st_ino: ROOT}
        for where, folders, files in os.walk(path):
            here = numbers[os.stat(where).st_ino]
            for name in folders + files:
                item = os.path.join(where, name)
                if os.path.islink(item):
                    msg = f"{item} is a symbolic link, which is not modelled"
                    raise UnmodelledError(msg)
                number = numbers.setdefault(os.stat(item).st_ino, len(numbers))
                found.names[here][name] = number
                if name in folders:
                    found.names[number] = {}
                else:
                    with open(item, "rb") as file:
                        found.contents[number] = file.read()
        return found
