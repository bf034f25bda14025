"""From records to the bytes of a file, as a stream: one pass, digests on the way."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from holdfast.format.layout import Placed, central_directory, data_descriptor, local_header
from holdfast.format.manifest import MANIFEST_NAME
from holdfast.records import Record

BLOCK = 1 << 24  # bytes handed on at a time


@dataclass(frozen=True)
class Part:
    """A record that is to be written."""

    name: str
    data: bytes | memoryview


def stream(parts: Iterable[Part], finish: Callable[[tuple[Record, ...]], bytes]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a checkpoint file.

    Args:
        parts: the records in their order, as ``torch.save`` has them.
        finish: makes the manifest's bytes from the records written.

    """
    placed: list[Placed] = []

    def one(name: str, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        view = memoryview(data).cast("B")
        offset = placed[-1].end_offset if placed else 0
        yield local_header(name, len(view), offset)
        crc = 0
        for at in range(0, len(view), BLOCK):
            block = view[at : at + BLOCK]
            crc = zlib.crc32(block, crc)
            yield block
        record = Record(name, len(view), crc)
        placed.append(Placed(record, offset))
        yield data_descriptor(record, offset)

    for part in parts:
        yield from one(part.name, part.data)
    serial = _serialization_id([item.record for item in placed])
    yield from one(".data/serialization_id", serial)
    yield from one(MANIFEST_NAME, finish(tuple(item.record for item in placed)))
    yield central_directory(placed)


def _serialization_id(records: list[Record]) -> bytes:
    """Return 40 digits that change with the content, as torch's own writer puts there."""
    names = zlib.crc32("\n".join(record.name for record in records).encode())
    content = 0
    for record in records:
        content = zlib.crc32(record.crc32.to_bytes(4, "little"), content)
    return f"{names:020d}{content:020d}".encode()
