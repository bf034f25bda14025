"""Reading a range of an object into memory: a large one by several requests side by side."""

from __future__ import annotations

import threading

from holdfast.storage import hurry
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
    over, first = threading.Event(), list[BaseException]()
    heeded = (over, *hurry.heeded())

    def work(at: int) -> None:
        with hurry.until(*heeded):
            try:
                read[at] = objects.get_into(key, start + at, view[at : at + PIECE])
            except BaseException as error:
                first.append(error)
                over.set()  # nobody waits for the others any longer
                raise

    try:
        in_threads(work, range(0, len(view), PIECE), REQUESTS)
    except InterruptedError:
        raise first[0] from None  # what the others were given up for
    finally:
        over.set()
    total = 0
    for at in sorted(read):
        if at > total:
            break  # the object ended before
        total = at + read[at]
    return total
