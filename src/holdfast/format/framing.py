"""The small archive that ``torch.save`` makes of one tensor, framed once for all tensors of a dtype and shape.

What depends on the tensor's bytes are a few numbers behind them, which ``tail`` puts in.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from holdfast.format.digest import combine, crc32
from holdfast.format.layout import ALIGNMENT, Placed, central_directory, place
from holdfast.format.writing import Part
from holdfast.records import Record

_DATA = "data/0"
_SERIAL = ".data/serialization_id"
_DIGITS = 20  # of half of a serialization id
_MARKS = (0xA5C3F00D, 0xC3A50FF1)  # stand in a template for the two checksums; in no name, size or padding
_NUMBER = struct.Struct("<I")


class Frame:
    """The archive around the bytes of a tensor.

    Args:
        leaders: the records before the tensor's, as ``torch.save`` has them.
        size: the tensor's bytes.
        trailer: the record behind it.

    Attributes:
        head: the bytes before the tensor's: a multiple of 64.
        size: the tensor's bytes.
        length: the bytes of the archive.

    """

    def __init__(self, leaders: Sequence[Part], size: int, trailer: Part) -> None:
        """Lay the archive out."""
        parts = (*leaders, Part(_DATA, b""), trailer)
        records = [Record(part.name, len(part.data), crc32(part.data)) for part in parts]
        records[len(leaders)] = Record(_DATA, size, _MARKS[0])
        records.append(Record(_SERIAL, 2 * _DIGITS, _MARKS[1]))
        placed = place(records)
        data, (end, serial) = placed[len(leaders)], placed[-2:]
        self.size = size
        self.head = b"".join(_whole(item, part.data) for item, part in zip(placed, leaders, strict=False)) + data.header
        names = f"{crc32(_names(records)):0{_DIGITS}d}".encode()
        before = [data.descriptor, _whole(end, trailer.data), serial.header]
        self._serial = sum(map(len, before))
        tail = b"".join((*before, names, bytes(_DIGITS), serial.descriptor, central_directory(placed)))
        self._tail = bytearray(tail)
        self._slots = [_places(tail, mark) for mark in _MARKS]
        self._crcs = [record.crc32 for record in records[:-1]]
        self._data = len(leaders)
        self._head_crc = crc32(self.head)
        self.length = len(self.head) + size + len(tail)

    def tail(self, crc: int) -> tuple[bytes, int]:
        """Return the bytes behind the tensor's, by the CRC-32 of those; and the CRC-32 of the whole archive."""
        tail = self._tail.copy()
        crcs = self._crcs.copy()
        crcs[self._data] = crc
        content = f"{crc32(struct.pack(f'<{len(crcs)}I', *crcs)):0{_DIGITS}d}".encode()
        begin = self._serial + _DIGITS
        tail[begin : begin + _DIGITS] = content
        serial = crc32(tail[self._serial : begin + _DIGITS])
        for places, number in zip(self._slots, (crc, serial), strict=True):
            for at in places:
                _NUMBER.pack_into(tail, at, number)
        whole = combine(combine(self._head_crc, crc, self.size), crc32(tail), len(tail))
        return bytes(tail), whole


def aligned(offset: int, frame: Frame | None = None, page: int = ALIGNMENT) -> int:
    """Return the first place from ``offset`` at which an archive may begin, its tensor's bytes at the start of a page.

    With no frame: the first multiple of the page.
    """
    ahead = 0 if frame is None else len(frame.head)
    return -(-(offset + ahead) // page) * page - ahead


def _whole(item: Placed, data: bytes | memoryview) -> bytes:
    return b"".join((item.header, data, item.descriptor))


def _names(records: Sequence[Record]) -> bytes:
    return "\n".join(record.name for record in records[:-1]).encode()


def _places(tail: bytes, mark: int) -> list[int]:
    """Return where a mark stands."""
    wanted, found, at = _NUMBER.pack(mark), [], tail.find(_NUMBER.pack(mark))
    while at >= 0:
        found.append(at)
        at = tail.find(wanted, at + 1)
    return found
