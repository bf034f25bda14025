"""How many requests something costs: the clients of all stores that are opened inside are counted."""

from __future__ import annotations

import contextlib
from collections import Counter

from holdfast.storage.remote import connect
from holdfast.testing.objects import CountingObjects


class Asked:
    """The requests so far, of all stores together."""

    def __init__(self):
        self._clients = []

    def wrap(self, objects):
        self._clients.append(CountingObjects(objects))
        return self._clients[-1]

    def clear(self):
        for client in self._clients:
            client.clear()

    def counts(self):
        return sum((client.counts for client in self._clients), Counter())


@contextlib.contextmanager
def requests():
    """Yield what counts the requests of every store that is opened inside, by their kinds."""
    asked = Asked()
    with connect.wrapping(asked.wrap):
        yield asked
