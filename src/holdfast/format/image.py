"""A checkpoint file as one piece of memory: laid out once for a shape of state, filled again and again.

The records' data are copied to their places; ``seal`` then adds what depends on them, the digests and
the manifest, and hands the file on in large blocks while it is still working on the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from holdfast.format.digest import crc32
from holdfast.format.layout import Placed, data_descriptor, place
from holdfast.format.writing import Finish, stream
from holdfast.records import Record

BLOCK = 1 << 24  # bytes handed on at a time

Arrive = Callable[[int], int | None]


class Plan:
    """Where each record lies in the file.

    Attributes:
        sizes: name and bytes of each record, in their order; what the plan is for.
        lengths: the bytes alone.
        offsets: where each record's data begin.
        starts: where each record's header begins.
        end: where the last record ends: the bytes that an image needs, but for the file's tail.

    """

    def __init__(self, sizes: Sequence[tuple[str, int]]) -> None:
        """Lay the records out."""
        self.sizes = tuple(sizes)
        self.lengths = [size for _, size in self.sizes]
        self._placed = place([Record(name, size, 0) for name, size in self.sizes])
        self.offsets = [item.data_offset for item in self._placed]
        self.starts = [item.header_offset for item in self._placed]
        self.end = self._placed[-1].end_offset if self._placed else 0

    def agrees(self, other: Plan | None, after: str) -> bool:
        """Tell whether the records behind the one of this name lie where another plan has them."""
        return other is not None and self._behind(after) == other._behind(after)  # noqa: SLF001 - one class

    def _behind(self, name: str) -> list[tuple[tuple[str, int], int]]:
        names = [known for known, _ in self.sizes]
        first = names.index(name) + 1 if name in names else len(names)
        return list(zip(self.sizes[first:], self.starts[first:], strict=True))

    def frame(self, image: memoryview) -> None:
        """Write the local headers; they stay as they are while the plan does."""
        for item in self._placed:
            image[item.header_offset : item.header_offset + len(item.header)] = item.header

    def seal(self, image: memoryview, finish: Finish, arrive: Arrive) -> Iterator[memoryview | bytes]:
        """Yield the bytes of the file, block by block, each as soon as its digests are known.

        Args:
            image: the framed image. It is written to, and must not change otherwise, but for the data
                that arrive, until the file is written.
            finish: makes the manifest's bytes from the records.
            arrive: called with each record's number; returns when its data are in place, with their
                digest if that was taken already.

        """
        start = 0
        sealed: list[Placed] = []
        for number, item in enumerate(self._placed):
            at, size = item.data_offset, item.record.size
            end, known = at + size, arrive(number)
            crc = known or 0
            while at < end:
                while at >= start + BLOCK:
                    yield image[start : start + BLOCK]
                    start += BLOCK
                stop = min(end, start + BLOCK)
                if known is None:
                    crc = crc32(image[at:stop], crc)
                at = stop
            record = Record(item.record.name, size, crc)
            image[end : item.end_offset] = data_descriptor(record, item.header_offset)
            sealed.append(Placed(record, item.header_offset))
        while self.end >= start + BLOCK:
            yield image[start : start + BLOCK]
            start += BLOCK
        yield image[start : self.end]
        yield b"".join(stream((), finish, after=sealed))
