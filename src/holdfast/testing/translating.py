"""From system calls to what they mean for a filesystem.

Only what lies under one folder counts. What is not followed here (a file written through a mapping,
io_uring, a symbolic link) is an error, not a gap.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from holdfast.testing.operations import (
    EVERYTHING,
    ROOT,
    Data,
    Folder,
    Length,
    Mark,
    Names,
    Step,
    Sync,
    UnmodelledError,
    What,
)
from holdfast.testing.tracing import Call

_RENAMES = ("rename", "renameat", "renameat2")
_LINKS = ("link", "linkat")
_OPENS = ("open", "openat", "openat2", "creat")
_DUPLICATES = ("dup", "dup2", "dup3", "fcntl")
_UNKNOWN = ("symlink", "symlinkat", "copy_file_range", "sendfile", "splice", "mmap", "ioctl")


@dataclass
class _Open:
    """An open file, as its descriptors share it."""

    inode: int
    position: int | None = 0
    appends: bool = False
    syncs: bool = False


@dataclass
class _Process:
    """What the threads of a process share."""

    folder: str = "/"
    files: dict[int, _Open] = field(default_factory=dict)


class Translator:
    """Follows the calls, and knows at each which inode a path or descriptor means."""

    def __init__(self, root: str, marks: str, start: Folder) -> None:
        """Begin with the folder as it was."""
        self._root = root
        self._marks = marks
        self._names = {number: dict(names) for number, names in start.names.items()}
        self._lengths = {number: len(data) for number, data in start.contents.items()}
        self._next = 1 + max([*self._names, *self._lengths])
        self._removed: dict[str, int] = {}
        self._processes: dict[int, _Process] = {}
        self._parents: dict[int, tuple[int, bool]] = {}

    def steps(self, calls: Iterable[Call]) -> list[Step]:
        """Return what the calls mean, in the order in which it may show.

        Raises:
            UnmodelledError: for a call whose outcome is not known here.

        """
        calls = list(calls)
        for call in calls:
            if call.name in ("clone", "clone3", "fork", "vfork"):
                shares = any("CLONE_FILES" in argument for argument in call.arguments)
                self._parents[call.result] = (call.process, shares)
        found = [step for call in sorted(calls, key=_when) for step in self._translate(call)]
        return sorted(found, key=lambda step: step.place)

    def _translate(self, call: Call) -> Iterator[Step]:
        name = call.name
        if name in _OPENS:
            whats: Iterator[What] = self._open(call)
        elif name in _RENAMES or name in _LINKS:
            whats = self._move(call, is_link=name in _LINKS)
        elif name in ("mkdir", "mkdirat"):
            whats = self._make(self._path(call, 0), is_folder=True)
        elif name in ("unlink", "unlinkat", "rmdir"):
            whats = self._remove(self._path(call, 0))
        elif name in ("chdir", "fchdir"):
            self._process(call).folder = self._path(call, 0) if name == "chdir" else call.path_of(0)
            return
        elif name == "truncate":
            whats = self._truncate(call)
        elif name in ("sync", "io_submit", "io_uring_enter"):
            whats = self._anywhere(call)
        else:
            whats = self._with_descriptor(call)
        for what in whats:
            yield Step(what, call.begun, call.ended, _told(call, what, self._root))

    def _anywhere(self, call: Call) -> Iterator[Sync]:
        if call.name != "sync":
            raise UnmodelledError(_unknown(call))
        yield Sync(EVERYTHING)

    def _process(self, call: Call) -> _Process:
        return self._process_of(call.process)

    def _process_of(self, number: int) -> _Process:
        if number not in self._processes:
            parent, shares = self._parents.get(number, (-1, False))
            origin = self._process_of(parent) if parent != -1 else _Process()
            self._processes[number] = origin if shares else replace(origin, files=dict(origin.files))
        return self._processes[number]

    def _path(self, call: Call, at: int) -> str:
        """Return the absolute path that begins at this argument, which may be the descriptor of its folder."""
        here = self._process(call).folder
        if not call.arguments[at].startswith('"'):
            here = call.path_of(at) or here
            at += 1
        return os.path.normpath(os.path.join(here, os.fsdecode(call.text(at))))

    def _inside(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + "/")

    def _inode(self, path: str) -> int | None:
        """Return what a path means now; None if it is not there, or lies elsewhere."""
        if not self._inside(path):
            return None
        at: int | None = ROOT
        for part in path[len(self._root) :].split("/"):
            at = self._names.get(at, {}).get(part) if part and at is not None else at
        return at

    def _place(self, path: str) -> tuple[int, str]:
        parent = self._inode(os.path.dirname(path))
        if parent is None:
            msg = f"{path} changes, whose folder was not seen being made"
            raise UnmodelledError(msg)
        return parent, os.path.basename(path)

    def _edit(self, *edits: tuple[int, str, int | None], is_folder: bool = False) -> Names:
        for parent, name, inode in edits:
            if inode is None:
                self._names[parent].pop(name, None)
            else:
                self._names[parent][name] = inode
        return Names(edits, is_folder)

    def _make(self, path: str, *, is_folder: bool) -> Iterator[Names]:
        if not self._inside(path):
            return
        number, self._next = self._next, self._next + 1
        if is_folder:
            self._names[number] = {}
        else:
            self._lengths[number] = 0
        yield self._edit((*self._place(path), number), is_folder=is_folder)

    def _remove(self, path: str) -> Iterator[Names]:
        inode = self._inode(path)
        if inode is not None:
            self._removed[path] = inode
            yield self._edit((*self._place(path), None))

    def _move(self, call: Call, *, is_link: bool) -> Iterator[Names]:
        second = 1 if call.arguments[0].startswith('"') else 2
        origin, goal = self._path(call, 0), self._path(call, second)
        if not self._inside(origin) and not self._inside(goal):
            return
        inode = self._inode(origin)
        if inode is None or not self._inside(goal):
            raise UnmodelledError(_unknown(call))
        if "RENAME_EXCHANGE" in call.arguments[-1]:
            yield self._edit((*self._place(origin), self._inode(goal)), (*self._place(goal), inode))
            return
        if (old := self._inode(goal)) is not None:
            if old == inode:  # two names of one file: nothing happens
                return
            self._removed[goal] = old
        added = (*self._place(goal), inode)
        yield self._edit(added) if is_link else self._edit((*self._place(origin), None), added)

    def _open(self, call: Call) -> Iterator[Names | Length]:
        path = self._path(call, 0)
        flags = " ".join(call.arguments) + ("O_CREAT|O_TRUNC" if call.name == "creat" else "")
        files = self._process(call).files
        files.pop(call.result, None)
        if not self._inside(path):
            return
        if "O_TMPFILE" in flags:
            raise UnmodelledError(_unknown(call))
        if self._inode(path) is None:
            yield from self._make(path, is_folder=False)
        inode = self._inode(path)
        if inode is None:
            return
        files[call.result] = _Open(inode, 0, "O_APPEND" in flags, "O_SYNC" in flags or "O_DSYNC" in flags)
        if "O_TRUNC" in flags and self._lengths[inode]:
            yield self._set_length(inode, 0)

    def _set_length(self, inode: int, length: int, *, only_more: bool = False) -> Length:
        self._lengths[inode] = max(length, self._lengths[inode] if only_more else 0)
        return Length(inode, length, only_more)

    def _truncate(self, call: Call) -> Iterator[Length]:
        inode = self._inode(self._path(call, 0))
        if inode is not None:
            yield self._set_length(inode, call.number(1))

    def _opened(self, call: Call, at: int = 0) -> _Open | None:
        """Return what a descriptor means, if it means anything under the root."""
        path = call.path_of(at)
        if not self._inside(path):
            return None
        files, number = self._process(call).files, call.number(at)
        if number not in files:  # opened before the recording
            gone = call.arguments[at].endswith("(deleted)")
            inode = self._removed.get(path) if gone else self._inode(path)
            if inode is None:
                raise UnmodelledError(_unknown(call))
            files[number] = _Open(inode, None)
        return files[number]

    def _with_descriptor(self, call: Call) -> Iterator[Data | Length | Sync | Mark]:
        if call.name == "write" and call.path_of(0) == self._marks:
            for line in call.text(1).decode().splitlines():
                yield Mark(line)
            return
        if call.name in _UNKNOWN:
            self._refuse(call)
            return
        file = self._opened(call)
        if call.name in _DUPLICATES:
            self._duplicate(call, file)
        elif file is not None:
            yield from self._on_file(call, file)

    def _on_file(self, call: Call, file: _Open) -> Iterator[Data | Length | Sync]:
        if call.name in ("fsync", "fdatasync", "syncfs"):
            yield Sync(EVERYTHING if call.name == "syncfs" else file.inode)
        elif call.name == "ftruncate":
            yield self._set_length(file.inode, call.number(1))
        elif call.name == "fallocate":
            yield from self._allocate(call, file)
        elif call.name == "lseek":
            file.position = call.result
        elif call.name in ("read", "readv"):
            file.position = None if file.position is None else file.position + call.result
        elif "write" in call.name:
            yield from self._write(call, file)

    def _allocate(self, call: Call, file: _Open) -> Iterator[Length]:
        if call.arguments[1] == "0":
            yield self._set_length(file.inode, call.number(2) + call.number(3), only_more=True)
        elif "KEEP_SIZE" not in call.arguments[1] or "PUNCH" in call.arguments[1]:
            raise UnmodelledError(_unknown(call))

    def _write(self, call: Call, file: _Open) -> Iterator[Data | Sync]:
        positioned = call.name.startswith("p")
        offset = call.number(3) if positioned else self._lengths[file.inode] if file.appends else file.position
        if offset is None:
            raise UnmodelledError(_unknown(call))
        if not positioned:
            file.position = offset + call.result
        if call.result:
            self._lengths[file.inode] = max(self._lengths[file.inode], offset + call.result)
            yield Data(file.inode, offset, call.text(1)[: call.result])
        if file.syncs:
            yield Sync(file.inode)

    def _duplicate(self, call: Call, file: _Open | None) -> None:
        if call.name == "fcntl" and "F_DUPFD" not in call.arguments[1]:
            return
        files = self._process(call).files
        files.pop(call.result, None)
        if file is not None:
            files[call.result] = file

    def _refuse(self, call: Call) -> None:
        """Refuse what changes a file in a way that is not followed here."""
        if call.name in ("symlink", "symlinkat"):
            harmless = not self._inside(self._path(call, 1))
        elif call.name == "mmap":
            writes = "PROT_WRITE" in call.arguments[2] and "MAP_SHARED" in call.arguments[3]
            harmless = not (writes and self._inside(call.path_of(4)))
        elif call.name == "ioctl":
            harmless = "CLONE" not in call.arguments[1] or not self._inside(call.path_of(0))
        else:
            goal = 0 if call.name == "sendfile" else 2
            harmless = not self._inside(call.path_of(goal))
        if not harmless:
            raise UnmodelledError(_unknown(call))


def _when(call: Call) -> int:
    return call.begun if "write" in call.name or "truncate" in call.name else call.ended


def _told(call: Call, what: object, root: str) -> str:
    """Return the call as a person would write it."""
    if isinstance(what, Mark):
        return f"mark {what.text}"
    paths = [call.path_of(at) for at in range(len(call.arguments)) if call.path_of(at).startswith(root)]
    if not isinstance(what, Data):
        paths += [os.fsdecode(call.text(at)) for at in range(len(call.arguments)) if call.arguments[at].startswith('"')]
    more = f", {len(what.data)} bytes at {what.offset}" if isinstance(what, Data) else ""
    return f"{call.name}({', '.join(path.removeprefix(root + '/') for path in paths)}{more})"


def _unknown(call: Call) -> str:
    return f"{call.name}({', '.join(argument[:200] for argument in call.arguments)}) is not modelled"
