"""Which storages are in the image already: from the threads that copy to the one that writes behind them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping


class Progress:
    """The arrivals of one save."""

    def __init__(self) -> None:
        """Expect nothing: everything is there."""
        self._missing: set[int] = set()
        self._digests: dict[int, int | None] = {}
        self._arrival = threading.Condition()
        self._wanted: int | None = None
        self._error: BaseException | None = None

    def expect(self, places: Iterable[int]) -> None:
        """Have the writer wait for these storages."""
        self._missing.update(places)

    def arrived(self, place: int, digest: int | None) -> None:
        """Say that a storage is there, and its digest if it was taken on the way."""
        with self._arrival:
            self._digests[place] = digest
            self._missing.discard(place)
            if place == self._wanted:
                self._arrival.notify()

    def all_arrived(self, digests: Mapping[int, int]) -> None:
        """Say that several storages are there, with their digests."""
        with self._arrival:
            self._digests.update(digests)
            self._missing.difference_update(digests)
            self._arrival.notify()

    def fail(self, error: BaseException) -> None:
        """Say that what is missing will not come."""
        with self._arrival:
            self._error = error
            self._arrival.notify()

    def digest(self, place: int) -> int | None:
        """Wait until a storage is there; return its digest, None if it is still to be taken."""
        if not self._missing:
            return self._digests.get(place)
        with self._arrival:
            self._wanted = place
            while place in self._missing:
                if self._error is not None:
                    raise self._error
                self._arrival.wait()
            return self._digests.get(place)
