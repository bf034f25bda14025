"""One rank's file of a sharded checkpoint: its regions, then the table that accounts for them, then a footer.

A region is an item as ``torch.distributed.checkpoint`` reads it (a tensor's is the small zip that ``torch.save``
writes), or the zeros before one. The regions follow each other from the file's first byte to the table, so that a
table that gives their lengths gives their places, and no byte is left unchecked. The table is JSON; the footer
holds its length and its CRC-32. Who knows the CRC-32 of table and footer (the manifest does) knows every byte.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.format.digest import crc32

SUFFIX = ".distcp"
VERSION = 1  # of the table
FOOTER_SIZE = 24
LONGEST = 2**28  # bytes of a table, those of a few million items: a file full of holes may claim any number

_FOOTER = struct.Struct("<QII8s")  # length of the table, its CRC-32, zero, the magic
_MAGIC = b"HFSHARD\x01"
_LARGEST = 2**62  # bytes: no file offset is larger
_CRC = 2**32 - 1
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError)


class ShardError(ValueError):
    """The bytes are no table of a shard, or not the one that was written."""


class NewerShardError(ShardError):
    """The table is whole, and of a version that is not known here."""


class Source(Protocol):
    """The bytes of one file."""

    @property
    def size(self) -> int:
        """The bytes it has."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return these bytes; fewer only where the file ends."""
        ...


@dataclass(frozen=True)
class Region:
    """Some bytes of a file, one after the other.

    Attributes:
        name: the item's fully qualified name; "" for zeros that only keep a distance.
        at: where in the whole tensor the item begins, by dimension; None for what is no tensor.
        offset: where in the file the region begins.
        length: its bytes.
        crc32: theirs.
        data: where in the region a tensor's own bytes begin, its elements in order; -1 where that is not said.
        size: how many they are.

    """

    name: str
    at: tuple[int, ...] | None
    offset: int
    length: int
    crc32: int
    data: int = -1
    size: int = 0

    @property
    def end(self) -> int:
        """Where in the file the next region begins."""
        return self.offset + self.length

    @property
    def label(self) -> str:
        """How it is called in messages: the item, and which part of it."""
        if not self.name:
            return f"the {self.length} bytes from {self.offset}"
        return self.name if not self.at or not any(self.at) else f"{self.name} from {list(self.at)}"


@dataclass(frozen=True)
class Table:
    """What a shard says of itself.

    Attributes:
        regions: every region, in the order of the file.
        offset: where the table begins: the regions' end.
        crc32: of the table and the footer, as the manifest has it.

    """

    regions: tuple[Region, ...]
    offset: int
    crc32: int


def encode(regions: Sequence[Region]) -> bytes:
    """Return the table and the footer.

    Raises:
        ShardError: if the regions do not follow each other, or are too many for a reader.

    """
    rows = []
    end = 0
    for region in regions:
        if region.offset != end:
            msg = f"{region.label} begins at {region.offset}, and the one before it ends at {end}"
            raise ShardError(msg)
        end = region.end
        at = None if region.at is None else list(region.at)
        rows.append([region.name, at, region.length, f"{region.crc32:08x}", region.data, region.size])
    table = json.dumps({"holdfast": VERSION, "regions": rows}, separators=(",", ":")).encode()
    if len(table) > LONGEST:
        msg = f"the table of {len(rows)} regions would take {len(table)} bytes: at most {LONGEST} are read"
        raise ShardError(msg)
    return table + _FOOTER.pack(len(table), crc32(table), 0, _MAGIC)


def read_table(source: Source) -> Table | None:
    """Read a shard's account of itself; None if the file has none, as those of plain DCP.

    Raises:
        ShardError: if it has one that is not as it was written.

    """
    size = source.size
    footer = source.read(max(0, size - FOOTER_SIZE), FOOTER_SIZE)
    begin = table_offset(footer, size)
    if begin is None:
        return None
    data = source.read(begin, size - begin)
    if len(data) < size - begin:
        msg = f"the file ended after {begin + len(data)} bytes"
        raise ShardError(msg)
    return decode(data, begin)


def table_offset(footer: bytes, size: int) -> int | None:
    """Return where the table of a file of this size begins, by its last bytes; None if they are no footer.

    Raises:
        ShardError: if they are one that cannot be.

    """
    if len(footer) != FOOTER_SIZE:
        return None
    length, _, zero, magic = _FOOTER.unpack(footer)
    if magic != _MAGIC:
        return None
    begin = size - FOOTER_SIZE - length
    if zero or begin < 0 or length > LONGEST:
        msg = f"its footer tells of a table of {length} bytes, in a file of {size}"
        raise ShardError(msg)
    return int(begin)


def decode(data: bytes, offset: int) -> Table:
    """Read a table and its footer, which begin at this place of the file.

    Raises:
        ShardError: if any byte is not as it was written.
        NewerShardError: if it is of a later version.

    """
    length, crc, _, _ = _FOOTER.unpack(data[-FOOTER_SIZE:])
    table = data[:-FOOTER_SIZE]
    if length != len(table) or crc != crc32(table):
        msg = "its table is not as it was written: the CRC-32 does not match"
        raise ShardError(msg)
    try:
        value = json.loads(table)
        if value["holdfast"] > VERSION:
            msg = f"table of version {value['holdfast']} is newer than this holdfast reads ({VERSION})"
            raise NewerShardError(msg)
        regions = tuple(_regions(value["regions"]))
    except ShardError:
        raise
    except _MALFORMED as error:
        msg = f"its table does not have the form of one: {error!r:.200}"
        raise ShardError(msg) from error
    end = regions[-1].end if regions else 0
    if end != offset:
        msg = f"its regions end at {end}, and its table begins at {offset}"
        raise ShardError(msg)
    return Table(regions, offset, crc32(data))


def _regions(rows: Any) -> Iterable[Region]:
    offset = 0
    for name, at, length, crc, data, size in rows:
        place = None if at is None else tuple(map(_count, at))
        region = Region(name, place, offset, _count(length), int(crc, 16), data, _count(size))
        inside = type(data) is int and (data == -1 or 0 <= data <= data + size <= length)
        if not isinstance(name, str) or not 0 <= region.crc32 <= _CRC or not inside:
            msg = f"a region {name!r:.80} of {length!r:.80} bytes cannot be"
            raise ShardError(msg)
        offset = region.end
        yield region


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        msg = f"{value!r:.80} stands where a number of bytes or elements should"
        raise ShardError(msg)
    return value
