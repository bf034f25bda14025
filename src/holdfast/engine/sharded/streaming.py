"""One rank's file, written from where the tensors lie: for saves during which they stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from holdfast.engine.sharded.image import Part, frame_of, lay_out, zeros_crc
from holdfast.engine.streaming import bytes_of
from holdfast.format.digest import crc32
from holdfast.format.shards import Region, encode

_PIECE = 1 << 20  # bytes that stay in a core's cache from the digest to the copy


class Stream:
    """The bytes of a file in their order.

    Args:
        parts: what is in it.

    Attributes:
        parts: the same, in the order of the file.
        spans: where each of them lies: its offset and length.
        size: the bytes of the file, once all were handed on.
        crc32: of its table and footer.

    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Lay the file out."""
        tensors = [part for part in parts if isinstance(part.data, torch.Tensor)]
        others = [part for part in parts if isinstance(part.data, bytes)]
        self._frames = [frame_of(part.data) for part in tensors if isinstance(part.data, torch.Tensor)]
        offsets, end = lay_out(self._frames)
        self.parts = [*tensors, *others]
        self.spans = [(at, frame.length) for at, frame in zip(offsets, self._frames, strict=True)]
        for part in others:
            self.spans.append((end, len(part.data)))
            end += len(part.data)
        self.size = self.crc32 = 0

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes. A tensor on another device is fetched when its turn comes."""
        regions: list[Region] = []
        end = 0
        for number, (part, (at, length)) in enumerate(zip(self.parts, self.spans, strict=True)):
            if at > end:
                regions.append(Region("", None, end, at - end, zeros_crc(at - end)))
                yield bytes(at - end)
            end = at + length
            if isinstance(part.data, bytes):
                regions.append(Region(part.name, part.at, at, length, crc32(part.data)))
                yield part.data
                continue
            frame, data, crc = self._frames[number], bytes_of(part.data), 0
            yield frame.head
            for begin in range(0, len(data), _PIECE):
                piece = data[begin : begin + _PIECE]
                crc = crc32(piece, crc)
                yield piece
            tail, whole = frame.tail(crc)
            regions.append(Region(part.name, part.at, at, length, whole, len(frame.head), frame.size))
            yield tail
        table = encode(regions)
        self.size, self.crc32 = end + len(table), crc32(table)
        yield table
