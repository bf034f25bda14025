"""The tensors of a checkpoint as a tree by the parts of their names, each folder with what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.front.sizes import amount
from holdfast.records import Manifest, TensorInfo

HEAD = ("tensor", "dtype", "shape", "size", "record")
RIGHT = ("size",)


@dataclass
class _Folder:
    """What is below one part of a name; ``tensor`` if a tensor has just that name."""

    folders: dict[str, _Folder] = field(default_factory=dict)
    tensor: TensorInfo | None = None

    def below(self) -> Iterator[TensorInfo]:
        """Yield the tensors that are deeper."""
        for folder in self.folders.values():
            if folder.tensor is not None:
                yield folder.tensor
            yield from folder.below()


def tree(manifest: Manifest, depth: int | None = None) -> list[tuple[str, ...]]:
    """Return the rows of a table under ``HEAD``; a folder deeper than ``depth`` stands as one row.

    Bytes that several tensors share count once in each folder. Folders with one thing in them are joined with it.
    """
    root = _Folder()
    for tensor in manifest.tensors:
        at = root
        for part in tensor.name.split("."):
            at = at.folders.setdefault(part, _Folder())
        at.tensor = tensor
    sizes = {record.name: record.size for record in manifest.records}
    users = Counter(tensor.record for tensor in manifest.tensors)
    rows: list[tuple[str, ...]] = []

    def add(folder: _Folder, label: str, level: int) -> None:
        while len(folder.folders) == 1 and folder.tensor is None:
            ((part, folder),) = folder.folders.items()
            label = f"{label}.{part}" if label else part
        if folder.tensor is not None:
            rows.append(_leaf(folder.tensor, _indented(label, level), sizes, users))
        if folder.folders and label:
            rows.append(_total(folder, _indented(label, level), sizes))
            level += 1
        if depth is None or level < depth:
            for part, below in folder.folders.items():
                add(below, part, level)

    add(root, "", 0)
    return rows


def _indented(label: str, level: int) -> str:
    return "  " * (level + 1) + label


def _leaf(tensor: TensorInfo, label: str, sizes: dict[str, int], users: Counter[str]) -> tuple[str, ...]:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    shared = f" (of {users[tensor.record]})" if users[tensor.record] > 1 else ""
    return (label, tensor.dtype, shape, amount(sizes.get(tensor.record, 0)), tensor.record + shared)


def _total(folder: _Folder, label: str, sizes: dict[str, int]) -> tuple[str, ...]:
    found = list(folder.below())
    size = sum(sizes.get(record, 0) for record in {tensor.record for tensor in found})
    return (label, "", f"{len(found)} tensors", amount(size), "")
