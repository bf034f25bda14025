"""Comparing a file's bytes, as they are handed over, with what its pieces must be: a CRC-32 for each."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.format.digest import combine, crc32


@dataclass(frozen=True)
class Piece:
    """Some bytes of a file, what they are in messages, and the CRC-32 that they were saved with."""

    label: str
    offset: int
    length: int
    crc32: int


class Pieces:
    """The pieces of one file: they follow each other from its first byte.

    ``take`` may be called from several threads and in any order, once for each byte; ``problem`` is asked at the end.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        """Expect the bytes up to ``end``."""
        self._pieces = pieces
        self._starts = [piece.offset for piece in pieces]
        self._parts: dict[int, list[tuple[int, int, int]]] = {}
        self._lock = threading.Lock()
        self.end = pieces[-1].offset + pieces[-1].length if pieces else 0

    def take(self, offset: int, data: memoryview) -> None:
        """Look at the bytes that stand at this offset of the file."""
        end = offset + len(data)
        found = []
        for index in range(max(0, bisect_right(self._starts, offset) - 1), len(self._pieces)):
            piece = self._pieces[index]
            if piece.offset >= end:
                break
            first, last = max(piece.offset, offset), min(piece.offset + piece.length, end)
            if first < last:
                found.append((index, (first, crc32(data[first - offset : last - offset]), last - first)))
        with self._lock:
            for index, part in found:
                self._parts.setdefault(index, []).append(part)

    def problem(self) -> tuple[str, str] | None:
        """Return the label of the first piece that is not as it was saved, and what is wrong; None if all are."""
        for index, piece in enumerate(self._pieces):
            crc = seen = 0
            for _, part, length in sorted(self._parts.get(index, ())):
                crc, seen = combine(crc, part, length), seen + length
            if seen != piece.length:
                return piece.label, f"{seen} of its {piece.length} bytes could be read"
            if crc != piece.crc32:
                return piece.label, f"its CRC-32 is {crc:08x} but {piece.crc32:08x} was saved"
        return None
