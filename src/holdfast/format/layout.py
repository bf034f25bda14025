"""The framing of the zip that ``torch.save`` writes, byte for byte.

Every record is stored uncompressed: a local header padded so that its data start at a multiple of
64, the data, a data descriptor with CRC-32 and sizes. Then the central directory, always with the
zip64 end records (PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3; the padding is torch's
``caffe2/serialize/inline_container.cc``). Framing is a function of names, sizes and checksums alone,
so that a reader can build it again and compare: no byte of the file is left unchecked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from holdfast.records import Record

ARCHIVE = "archive"
ALIGNMENT = 64
END_SIZE = 56 + 20 + 22  # zip64 end record, its locator, end record

_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF
_UTF8_NAME = 0x0800
_SIZES_FOLLOW = 0x0008
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_CRC_AT, _CRC_SIZE = 16, 4  # of a central entry
_SHORT = 32  # characters of a record's name; those of torch's are shorter
BARE_ENTRY = _CENTRAL.size  # bytes of a central entry before the name
BARE_HEADER = _LOCAL.size  # bytes of a local header before the name
_DESCRIPTOR = struct.Struct("<4sIII")
_WIDE_DESCRIPTOR = struct.Struct("<4sIQQ")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")


@dataclass(frozen=True)
class Placed:
    """A record with the offset of its local header in the file."""

    record: Record
    header_offset: int

    @cached_property
    def header(self) -> bytes:
        """The local header, padding included."""
        return local_header(self.record.name, self.record.size, self.header_offset)

    @property
    def data_offset(self) -> int:
        """Where the record's data start: a multiple of ``ALIGNMENT``."""
        return self.header_offset + len(self.header)

    @property
    def descriptor(self) -> bytes:
        """The data descriptor behind the data."""
        return data_descriptor(self.record, self.header_offset)

    @property
    def end_offset(self) -> int:
        """Where the next local header, or the central directory, begins."""
        size = self.record.size
        return self.data_offset + size + (_descriptor_of(size, self.header_offset).size if size else 0)


def place(records: Sequence[Record]) -> list[Placed]:
    """Give each record its offset, in order."""
    placed = []
    offset = 0
    for record in records:
        placed.append(Placed(record, offset))
        offset = placed[-1].end_offset
    return placed


def full_name(name: str) -> bytes:
    """Return a record's name as it stands in the zip."""
    return f"{ARCHIVE}/{name}".encode()


def _flags(size: int) -> int:
    """Return a record's flags: an empty one has no descriptor, as torch's writer has it."""
    return _UTF8_NAME | (_SIZES_FOLLOW if size else 0)


def _zip64(size: int, offset: int, *, packed: int | None = None) -> bytes:
    """Return the zip64 extra field, with only what does not fit in 32 bits; else nothing."""
    values = []
    if size >= _MAX32:
        values += [size, size if packed is None else packed]
    if offset >= _MAX32:
        values.append(offset)
    return struct.pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""


def local_header(name: str, size: int, offset: int) -> bytes:
    """Return a record's local header at this offset, padded up to its data."""
    label = full_name(name)
    zip64 = _zip64(size, offset, packed=0)  # torch's writer learns the packed size behind the data
    bare = offset + _LOCAL.size + len(label) + len(zip64) + 4
    padding = -bare % ALIGNMENT
    extra = zip64 + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    header = _LOCAL.pack(b"PK\x03\x04", 0, _flags(size), 0, 0, 0, 0, 0, 0, len(label), len(extra))
    return header + label + extra


def data_descriptor(record: Record, offset: int) -> bytes:
    """Return what follows a record's data: CRC-32 and sizes, nothing for an empty one."""
    if not record.size:
        return b""
    return _descriptor_of(record.size, offset).pack(b"PK\x07\x08", record.crc32, record.size, record.size)


def _descriptor_of(size: int, offset: int) -> struct.Struct:
    return _WIDE_DESCRIPTOR if size >= _MAX32 or offset >= _MAX32 else _DESCRIPTOR


def central_directory(placed: Sequence[Placed]) -> bytes:
    """Return everything behind the last record."""
    start = placed[-1].end_offset if placed else 0
    directory = b"".join(_central_entry(item) for item in placed)
    count, size = len(placed), len(directory)
    end64 = _END64.pack(b"PK\x06\x06", 44, 0x031E, 45, 0, 0, count, count, size, start)
    locator = _LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
    short = min(count, _MAX16)
    end = _END.pack(b"PK\x05\x06", 0, 0, short, short, min(size, _MAX32), min(start, _MAX32), 0)
    return directory + end64 + locator + end


def _central_entry(item: Placed) -> bytes:
    name = item.record.name
    around = _around_crc if len(name) <= _SHORT else _around_crc.__wrapped__  # a stranger's names are not kept
    before, behind = around(name, item.record.size, item.header_offset)
    return before + item.record.crc32.to_bytes(_CRC_SIZE, "little") + behind


@lru_cache(maxsize=1 << 13)
def _around_crc(name: str, size: int, offset: int) -> tuple[bytes, bytes]:
    """Return what stands before and behind the checksum in a central entry: the same from save to save."""
    label, extra = full_name(name), _zip64(size, offset)
    fields = (b"PK\x01\x02", 0, 0, _flags(size), 0, 0, 0, 0)
    sizes = (min(size, _MAX32), min(size, _MAX32), len(label), len(extra))
    entry = _CENTRAL.pack(*fields, *sizes, 0, 0, 0, 0, min(offset, _MAX32)) + label + extra
    return entry[:_CRC_AT], entry[_CRC_AT + _CRC_SIZE :]


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies, as the end of the file says."""

    offset: int
    size: int
    count: int


def parse_end(tail: bytes, file_size: int) -> Directory | None:
    """Find the central directory from the last ``END_SIZE`` bytes of the file; None if there is none."""
    if len(tail) < END_SIZE:
        return None
    end64 = _END64.unpack_from(tail, len(tail) - END_SIZE)
    signatures = (end64[0], tail[-42:-38], tail[-22:-18])
    if signatures != (b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"):
        return None
    directory = Directory(offset=end64[9], size=end64[8], count=end64[7])
    return directory if directory.offset + directory.size + END_SIZE == file_size else None


def parse_entry(directory: bytes, at: int) -> tuple[str, int, int, int]:
    """Read one central entry: full name, size, offset of its local header, where the next begins.

    Raises:
        ValueError: if there is no entry there.

    """
    if at + _CENTRAL.size > len(directory) or directory[at : at + 4] != b"PK\x01\x02":
        msg = "no entry here"
        raise ValueError(msg)
    fields = _CENTRAL.unpack_from(directory, at)
    size, name_length, extra_length, offset = fields[9], fields[10], fields[11], fields[16]
    begin = at + _CENTRAL.size
    name = directory[begin : begin + name_length].decode("utf-8", "replace")
    extra = directory[begin + name_length : begin + name_length + extra_length]
    wide = [value for (value,) in struct.iter_unpack("<Q", _whole_words(extra[4:]))] if extra[:2] == b"\x01\0" else []
    if size == _MAX32 and len(wide) > 1:
        size = wide[0]
        wide = wide[2:]
    if offset == _MAX32 and wide:
        offset = wide[0]
    return name, size, offset, begin + name_length + extra_length + fields[12]


def _whole_words(data: bytes) -> bytes:
    return data[: len(data) // 8 * 8]
