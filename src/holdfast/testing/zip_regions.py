"""What each byte of a checkpoint file belongs to, for files of the form that ``torch.save`` writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.format import layout

HEADER, PADDING, DATA, DESCRIPTOR, ENTRY, END = (
    "header",
    "padding",
    "data",
    "descriptor",
    "directory entry",
    "end record",
)

_LOCAL = struct.Struct("<26xHH")  # a local header up to the lengths of its name and its extra field
_END_SIZES = (("zip64 end", 56), ("zip64 locator", 20), ("end", 22))


@dataclass(frozen=True)
class Region:
    """A stretch of a file.

    Attributes:
        record: the record's name without the archive's, such as ``data/0``; of an end record its kind;
            "" for a file of unknown form.
        part: ``header``, ``padding``, ``data``, ``descriptor``, ``directory entry`` or ``end record``.
        begin: its first byte.
        end: the byte behind its last.

    """

    record: str
    part: str
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin

    def __str__(self) -> str:
        """Return ``header of data/0``."""
        return f"{self.part} of {self.record or 'the file'}"


def regions(data: bytes) -> list[Region]:
    """Divide a file into its parts, in their order; together they are the whole file.

    A file that is no zip of torch's form is one region.
    """
    try:
        found = sorted(_regions(data), key=lambda region: region.begin)
    except (ValueError, struct.error):
        found = []
    whole = bool(found) and [item.begin for item in found] == [0, *(item.end for item in found[:-1])]
    return found if whole and found[-1].end == len(data) else [Region("", DATA, 0, len(data))]


def _regions(data: bytes) -> Iterator[Region]:
    directory = layout.parse_end(data[-layout.END_SIZE :], len(data))
    if directory is None:
        return
    entries, at = [], directory.offset
    while at < directory.offset + directory.size:
        full, size, offset, after = layout.parse_entry(data, at)
        name = full.partition("/")[2] or full
        entries.append((offset, name, size))
        yield Region(name, ENTRY, at, after)
        at = after
    entries.sort()
    stops = [offset for offset, *_ in entries[1:]] + [directory.offset]
    for (offset, name, size), stop in zip(entries, stops, strict=True):
        yield from _record(data, offset, name, size, stop)
    for kind, length in _END_SIZES:
        yield Region(kind, END, at, at + length)
        at += length


def _record(data: bytes, offset: int, name: str, size: int, stop: int) -> Iterator[Region]:
    label, extra = _LOCAL.unpack_from(data, offset)
    padding = offset + layout.BARE_HEADER + label
    begin = padding + extra
    parts = ((HEADER, offset, padding), (PADDING, padding, begin), (DATA, begin, begin + size))
    for part, start, end in (*parts, (DESCRIPTOR, begin + size, stop)):
        if start < end:
            yield Region(name, part, start, end)
