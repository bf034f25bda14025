"""What a filesystem may hold after a power cut: all that was synced, and of all else whatever it happened to write.

The rules, those of a journalling filesystem that promises no more than POSIX:

- Data that no sync of their file covers are there, lost, there in part, or only the length is. Several
  writes reach the disk in any order.
- Names that no sync of their folder covers are there up to any point of their order. Folders know
  nothing of each other. A rename is one step, also between two folders, and so is an exchange of two names.
- A sync of a file says nothing of its name, one of a folder nothing of the data or of its own name.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from holdfast.testing.operations import EVERYTHING, ROOT, Data, Folder, Length, Mark, Names, Step, Sync

SECTOR = 512
_ALL_SUBSETS = 5  # of so many writes every subset is tried; of more, those that tell most
_MOST = 512  # mixtures of several files' variants; beyond them one file varies at a time
_THERE, _LOST, _HEAD, _TAIL, _ZEROS = "there", "lost", "only its beginning", "only its end", "zeros"


@dataclass(frozen=True)
class Tree:
    """One outcome: the files by path (several paths of one number are one file), and the folders."""

    files: tuple[tuple[str, int], ...]
    folders: tuple[str, ...]
    contents: dict[int, bytes]
    lost: tuple[str, ...]

    def key(self) -> bytes:
        """Return something that two outcomes share if, and only if, they look the same."""
        numbers: dict[int, int] = {}
        seen = hashlib.blake2b(repr(self.folders).encode())
        for path, inode in self.files:
            seen.update(repr((path, numbers.setdefault(inode, len(numbers)))).encode())
            seen.update(hashlib.blake2b(self.contents[inode]).digest())
        return seen.digest()


@dataclass
class _Disk:
    """What was asked for up to one moment, and how much of it is sure."""

    start: Folder
    steps: list[Step] = field(default_factory=list)
    sure: set[int] = field(default_factory=set)  # indices of steps

    def add(self, step: Step) -> None:
        """Take in the next step."""
        if isinstance(step.what, Sync):
            inode = step.what.inode
            covered = (at for at, earlier in enumerate(self.steps) if earlier.ended < step.begun)
            self.sure.update(at for at in covered if inode == EVERYTHING or inode in _touched(self.steps[at]))
        self.steps.append(step)

    def trees(self, *, any_order: bool) -> Iterator[Tree]:
        """Yield every outcome of a power cut now."""
        names = [at for at, step in enumerate(self.steps) if isinstance(step.what, Names)]
        for chosen in _subsets(names, self) if any_order else _prefixes(names, self):
            yield from self._with_names(names, chosen)

    def _with_names(self, names: Sequence[int], chosen: frozenset[int]) -> Iterator[Tree]:
        files, folders = _walk(self._tree(chosen))
        missing = tuple(self.steps[at].told for at in names if at not in chosen)
        inodes = sorted({inode for _, inode in files})
        fates = [self._contents(inode) for inode in inodes]
        for mixture in _mixtures(fates):
            lost = missing + tuple(itertools.chain.from_iterable(one[1] for one in mixture))
            yield Tree(files, folders, {inode: one[0] for inode, one in zip(inodes, mixture, strict=True)}, lost)

    def _tree(self, chosen: frozenset[int]) -> dict[int, dict[str, int]]:
        tree = {number: dict(names) for number, names in self.start.names.items()}
        for at, step in enumerate(self.steps):
            if not isinstance(step.what, Names):
                continue
            if step.what.is_folder:
                tree[step.what.edits[0][2] or ROOT] = {}
            for parent, name, inode in step.what.edits if at in chosen else ():
                if inode is None:
                    tree[parent].pop(name, None)
                else:
                    tree[parent][name] = inode
        return tree

    def _contents(self, inode: int) -> list[tuple[bytes, tuple[str, ...]]]:
        """Return what may stand in a file, with what is lost of it; first that all is there, then that nothing is."""
        pieces = [at for at, step in enumerate(self.steps) if not isinstance(step.what, Sync) and _of(step) == inode]
        unsure = [at for at in pieces if at not in self.sure]
        found: dict[bytes, tuple[str, ...]] = {}
        for fates in _fates(unsure):
            data = bytearray(self.start.contents.get(inode, b""))
            for at in pieces:
                _apply(self.steps[at].what, fates.get(at, _THERE), data)
            told = tuple(f"{self.steps[at].told}: {fate}" for at, fate in fates.items() if fate != _THERE)
            found.setdefault(bytes(data), told)
        return list(found.items())


def outcomes(start: Folder, steps: Iterable[Step], *, any_order: bool) -> Iterator[tuple[int, tuple[str, ...], Tree]]:
    """Yield every outcome of a power cut behind every step: the steps before it, the marks by then, the outcome.

    One that looks like an earlier one of the same marks is left out.
    """
    disk = _Disk(start)
    marks: tuple[str, ...] = ()
    seen: set[bytes] = set()
    changed = True
    for at, step in enumerate([None, *steps]):
        if step is not None:
            disk.add(step)
            # What can be after a sync could be before it, too; but a mark behind it has other demands.
            changed = not isinstance(step.what, Sync)
            if isinstance(step.what, Mark):
                marks, seen = (*marks, step.what.text), set()
        for tree in disk.trees(any_order=any_order) if changed else ():
            key = tree.key()
            if key not in seen:
                seen.add(key)
                yield at, marks, tree


def _touched(step: Step) -> Iterator[int]:
    if isinstance(step.what, Names):
        yield from (parent for parent, _, _ in step.what.edits)
    elif isinstance(step.what, (Data, Length)):
        yield step.what.inode


def _of(step: Step) -> int | None:
    return step.what.inode if isinstance(step.what, (Data, Length)) else None


def _subsets(names: Sequence[int], disk: _Disk) -> Iterator[frozenset[int]]:
    """Yield every choice of the names that are not sure."""
    sure = frozenset(at for at in names if at in disk.sure)
    unsure = [at for at in names if at not in sure]
    for number in range(len(unsure), -1, -1):
        for some in itertools.combinations(unsure, number):
            yield sure | frozenset(some)


def _prefixes(names: Sequence[int], disk: _Disk) -> Iterator[frozenset[int]]:
    """Yield every choice in which each folder's names are there up to some point."""
    of_folder: dict[int, list[int]] = {}
    for at in names:
        for folder in set(_touched(disk.steps[at])):
            of_folder.setdefault(folder, []).append(at)
    lists = list(of_folder.values())
    least = [max((n for n, at in enumerate(steps, 1) if at in disk.sure), default=0) for steps in lists]
    ranges = [range(len(steps), fewest - 1, -1) for steps, fewest in zip(lists, least, strict=True)]
    for lengths in itertools.product(*ranges):
        chosen = frozenset(at for steps, most in zip(lists, lengths, strict=True) for at in steps[:most])
        left_out = (at for steps, most in zip(lists, lengths, strict=True) for at in steps[most:])
        if chosen.isdisjoint(left_out):  # a rename between two folders is in both or in none
            yield chosen


def _walk(tree: dict[int, dict[str, int]]) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    files: list[tuple[str, int]] = []
    folders: list[str] = []
    waiting = [("", ROOT)]
    while waiting:
        prefix, here = waiting.pop()
        for name, inode in sorted(tree[here].items()):
            if inode in tree:
                folders.append(prefix + name)
                waiting.append((f"{prefix}{name}/", inode))
            else:
                files.append((prefix + name, inode))
    return tuple(sorted(files)), tuple(sorted(folders))


def _mixtures(
    fates: list[list[tuple[bytes, tuple[str, ...]]]],
) -> Iterator[tuple[tuple[bytes, tuple[str, ...]], ...]]:
    """Yield what stands in the files together."""
    number = 1
    for one in fates:
        number *= len(one)
    if number <= _MOST:
        yield from itertools.product(*fates)
        return
    for varied in range(len(fates)):
        for others in (0, 1):
            fixed = [[one[min(others, len(one) - 1)]] for one in fates]
            yield from itertools.product(*[*fixed[:varied], fates[varied], *fixed[varied + 1 :]])


def _fates(unsure: Sequence[int]) -> Iterator[dict[int, str]]:
    """Yield what may become of writes that no sync covers: first that all are there, then that none is."""
    yield dict.fromkeys(unsure, _THERE)
    yield dict.fromkeys(unsure, _LOST)
    yield dict.fromkeys(unsure, _ZEROS)
    for there in _choices(unsure):
        yield {at: _THERE if at in there else _LOST for at in unsure}
    for n, at in enumerate(unsure):
        for fate in (_HEAD, _TAIL, _ZEROS):
            yield {**dict.fromkeys(unsure, _THERE), at: fate}
            yield {**dict.fromkeys(unsure[:n], _THERE), at: fate, **dict.fromkeys(unsure[n + 1 :], _LOST)}


def _choices(unsure: Sequence[int]) -> Iterator[frozenset[int]]:
    whole = frozenset(unsure)
    if len(unsure) <= _ALL_SUBSETS:
        for number in range(1, len(unsure)):
            yield from map(frozenset, itertools.combinations(unsure, number))
        return
    for n, at in enumerate(unsure):
        yield frozenset(unsure[:n])
        yield whole - {at}
        yield frozenset({at})


def _apply(what: object, fate: str, data: bytearray) -> None:
    """Carry one write or change of length out, as far as its fate has it."""
    if isinstance(what, Length):
        if fate == _THERE:
            _grow(data, what.length)
            if not what.only_more:
                del data[what.length :]
    elif isinstance(what, Data) and fate != _LOST:
        first, last = _part(len(what.data), fate)
        if fate != _HEAD:  # the length is there before the bytes, or without them
            _grow(data, what.offset + len(what.data))
        _grow(data, what.offset + last)
        data[what.offset + first : what.offset + last] = what.data[first:last]


def _part(length: int, fate: str) -> tuple[int, int]:
    """Return which bytes of a write are there; a disk writes whole sectors."""
    middle = length // 2 // SECTOR * SECTOR or length // 2
    return {_HEAD: (0, middle), _TAIL: (middle, length), _ZEROS: (0, 0)}.get(fate, (0, length))


def _grow(data: bytearray, length: int) -> None:
    data.extend(bytes(max(0, length - len(data))))
