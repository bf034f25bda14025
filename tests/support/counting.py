"""How many requests something costs: the clients of all stores that are opened inside are counted."""

from __future__ import annotations

import contextlib
from collections import Counter
from threading import Lock

from holdfast.storage.remote import connect

PAGE = 1000  # keys that a server puts into one answer to a listing


class Counting:
    """Stands before a client: every method of the protocol is one request, a listing one for each page."""

    def __init__(self, objects, counts, lock):
        self._objects, self._counts, self._lock = objects, counts, lock

    def __getattr__(self, name):
        value = getattr(self._objects, name)
        if not callable(value):
            return value

        def call(*given, **words):
            self._count(name)
            result = value(*given, **words)
            return self._paged(result) if name == "list" else result

        return call

    def _count(self, name):
        with self._lock:
            self._counts[name] += 1

    def _paged(self, listed):
        for number, item in enumerate(listed):
            if number and number % PAGE == 0:
                self._count("list")
            yield item


@contextlib.contextmanager
def requests():
    """Yield a Counter of the requests of every store that is opened inside, by their kinds."""
    counts, lock = Counter(), Lock()
    with connect.wrapping(lambda objects: Counting(objects, counts, lock)):
        yield counts
