"""Reading a range of an object into memory: a large one by several requests side by side."""

from __future__ import annotations

from holdfast.storage.direct_read import in_threads
from holdfast.storage.remote.objects import Objects

PIECE = 1 << 23  # bytes of one request: long enough for its round trip not to count
REQUESTS = 8  # under way at a time


def read_into(objects: Objects, key: str, start: int, view: memoryview) -> int:
    """Fill memory from an object; return the bytes read: fewer than it has room for only at the object's end.

    Raises:
        OSError: the first that went wrong; the memory is then partly filled.

    """
    if len(view) <= PIECE:
        return objects.get_into(key, start, view)
    read: dict[int, int] = {}

    def work(at: int) -> None:
        read[at] = objects.get_into(key, start + at, view[at : at + PIECE])

    in_threads(work, range(0, len(view), PIECE), REQUESTS)
    total = 0
    for at in sorted(read):
        if at > total:
            break  # the object ended before
        total = at + read[at]
    return total
