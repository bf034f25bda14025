"""The bytes of a blob in their order; from a store that is far away, several ranges are under way at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.source import BlobSource, FileSource

if TYPE_CHECKING:
    from concurrent.futures import Future

_BLOCK = 1 << 22  # bytes read at a time from a file
_RANGE = 1 << 23  # bytes of one request: large enough that its trip is worth while
_AHEAD = 8  # ranges under way: so many times _RANGE are held in memory

Source = BlobSource | FileSource


def blocks(source: Source, offset: int, size: int) -> Iterator[bytes]:
    """Yield the bytes from an offset to the size, in order; less where the source ends early.

    Raises:
        OSError: if the source cannot be read.

    """
    if isinstance(source, FileSource) or source.store.is_local or size - offset <= _RANGE:
        yield from _one_by_one(source, offset, size)
        return
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - not for those who read a file

    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        starts = iter(range(offset, size, _RANGE))
        try:
            while True:
                for start in islice(starts, _AHEAD - len(waiting)):
                    length = min(_RANGE, size - start)
                    waiting.append((length, pool.submit(source.read, start, length)))
                if not waiting:
                    return
                length, first = waiting.popleft()
                data = first.result()
                yield data
                if len(data) < length:
                    return
        finally:
            for _, future in waiting:
                future.cancel()


def _one_by_one(source: Source, offset: int, size: int) -> Iterator[bytes]:
    while offset < size:
        data = source.read(offset, min(_BLOCK, size - offset))
        if not data:
            return
        yield data
        offset += len(data)
