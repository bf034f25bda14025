"""From records to the bytes of a file, as a stream: one pass, digests on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from holdfast.format.digest import crc32
from holdfast.format.layout import Placed, central_directory, data_descriptor, local_header, place
from holdfast.format.manifest import MANIFEST_NAME
from holdfast.records import Record

BLOCK = 1 << 20  # bytes handed on at a time: still in the processor's cache when they are copied
_FEW = 1 << 16  # bytes that are copied quicker than they are handed on by themselves

SLACK_NAME = "holdfast/slack"
_PAGE = 4096
_LEAST_SLACK = 1024  # bytes by which a skeleton may grow before the storages behind it have to move

Finish = Callable[[tuple[Record, ...]], bytes]


@dataclass(frozen=True)
class Part:
    """A record that is to be written."""

    name: str
    data: bytes | memoryview


def stream(parts: Iterable[Part], finish: Finish, after: Sequence[Placed] = ()) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a checkpoint file.

    Args:
        parts: the records in their order, as ``torch.save`` has them.
        finish: makes the manifest's bytes from the records written.
        after: the records that stand before these and are written already.

    """
    placed = list(after)

    def one(name: str, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        view = memoryview(data).cast("B")
        offset = placed[-1].end_offset if placed else 0
        if len(view) < _FEW:
            item = Placed(Record(name, len(view), crc32(view)), offset)
            placed.append(item)
            yield b"".join((item.header, view, item.descriptor))
            return
        yield local_header(name, len(view), offset)
        crc = 0
        for at in range(0, len(view), BLOCK):
            block = view[at : at + BLOCK]
            crc = crc32(block, crc)
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
    names = crc32("\n".join(record.name for record in records).encode())
    content = 0
    for record in records:
        content = crc32(record.crc32.to_bytes(4, "little"), content)
    return f"{names:020d}{content:020d}".encode()


def slack(leaders: Sequence[Part], front: int) -> Part:
    """Return a record of zeros to stand behind the leaders, so that the next one begins at the start of a page.

    Args:
        leaders: the records before it.
        front: where the next one is to begin, if there is room; 0 if that is not known.

    """
    end = place([Record(part.name, len(part.data), 0) for part in leaders])[-1].end_offset
    framing = len(local_header(SLACK_NAME, 1, end)) + len(data_descriptor(Record(SLACK_NAME, 1, 0), end))
    if end + framing >= front:
        front = -(-(end + framing + _LEAST_SLACK) // _PAGE) * _PAGE
    return Part(SLACK_NAME, bytes(front - end - framing))
