"""The records of a checkpoint, read straight into the memory that its tensors will keep, and checked there.

What is verified and what is loaded are therefore the same bytes: there is no second reading during
which the file could change. The memory is one image of the file, so that it comes in huge pages (the
first touch of small ones takes longer than the reading); large tensors are parts of it and each gives
its pages back when it goes, small ones are copied out.
"""

from __future__ import annotations

import mmap
import weakref
from dataclasses import dataclass, field

import torch

from holdfast.errors import DamagedCheckpointError
from holdfast.format.layout import Placed
from holdfast.format.reading import Account, Inspection
from holdfast.storage.direct_read import PAGE, PIECE, FileReader, in_threads, page_memory, whole_pages

TENSORS = "data/"  # where the names of the records of tensors begin; the others hold plain bytes

_LARGE = 1 << 16  # bytes of a record that stays in the image: the pages it shares with others are kept for it
_DROP = getattr(mmap, "MADV_DONTNEED", None)


@dataclass(frozen=True)
class Contents:
    """The records of a file, by name: those of tensors as flat tensors of ``uint8``, the others as bytes."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    others: dict[str, bytes] = field(default_factory=dict)


def fill(path: str, descriptor: int, account: Account, *, verify: bool) -> Contents:
    """Read all records of an open file into memory of the file's size.

    Raises:
        DamagedCheckpointError: if a byte is not as it was written (only with ``verify``), or if the
            file ends early.
        OSError: what the system says of a read that failed, or of memory that it has not.

    """
    inspection = Inspection(path, account) if verify else None
    image = page_memory(account.end)
    view = memoryview(image)

    def work(start: int) -> None:
        stop = min(start + PIECE, account.end)
        end = start + reader.read_into(view[start : whole_pages(stop)], start)
        if end < stop:
            raise DamagedCheckpointError(path, "the file", f"it ended after {end} bytes")
        if inspection is not None:
            inspection.take(start, view[start:stop])

    with FileReader(descriptor) as reader:
        in_threads(work, range(0, account.end, PIECE))
    if inspection is not None:
        inspection.finish()
    return _contents(image, account)


def _contents(image: mmap.mmap, account: Account) -> Contents:
    contents = Contents()
    kept = 0  # where the memory ends that has an owner or was given back
    for item in account.placed:
        name, begin, end = item.record.name, item.data_offset, item.data_offset + item.record.size
        if not name.startswith(TENSORS):
            contents.others[name] = image[begin:end]
        elif item.record.size < _LARGE:
            contents.tensors[name] = _copied(image, item)
        else:
            contents.tensors[name] = _part(image, begin, end)
            _give_back(image, kept, begin)
            kept = end
    _give_back(image, kept, len(image))
    return contents


def _copied(image: mmap.mmap, item: Placed) -> torch.Tensor:
    size = item.record.size
    if not size:  # torch makes no tensor of no memory
        return torch.empty(0, dtype=torch.uint8, device="cpu")
    return torch.frombuffer(image, dtype=torch.uint8, count=size, offset=item.data_offset).clone()


def _part(image: mmap.mmap, begin: int, end: int) -> torch.Tensor:
    """Return a tensor over a part of the image, which gives back its pages when nobody has it any more."""
    view = memoryview(image)[begin:end]
    weakref.finalize(view, _give_back, image, begin, end).atexit = False
    return torch.frombuffer(view, dtype=torch.uint8)  # torch holds on to the view


def _give_back(image: mmap.mmap, begin: int, end: int) -> None:
    """Return to the system the pages that lie between two places as a whole."""
    first, last = whole_pages(begin), end // PAGE * PAGE
    if _DROP is not None and first < last:
        image.madvise(_DROP, first, last - first)


def keeps_what_it_has() -> bool:
    """Tell, by trying, whether a tensor holds on to the view that it was made of, so that its pages stay its own."""
    image = page_memory(2 * PAGE)
    image[:] = b"\1" * len(image)
    return bool(_part(image, 0, len(image)).all())
