"""What the listings of an object store once showed, so that a test can have them lag behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from holdfast.storage.remote.objects import Listed


class Past:
    """The changes that went through a wrapper, in their order. Safe in threads."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._known: dict[str, Listed] = {}
        self._changes: list[tuple[str, Listed | None]] = []  # the key, and what it was before

    def clear(self) -> None:
        """Forget everything."""
        with self._one_at_a_time:
            self._known.clear()
            self._changes.clear()

    def changed(self, key: str, now: Listed | None) -> None:
        """Take note of what an object is now; None if it is gone."""
        with self._one_at_a_time:
            self._changes.append((key, self._known.get(key)))
            if now is None:
                self._known.pop(key, None)
            else:
                self._known[key] = now

    def seen(self, listed: Iterable[Listed]) -> Iterator[Listed]:
        """Pass a listing on, and take note of what is in it: it was there before all changes that come."""
        for found in listed:
            with self._one_at_a_time:
                self._known[found.key] = found
            yield found

    def before(self, changes: int, listed: Iterable[Listed], prefix: str, *, deep: bool) -> Iterator[Listed]:
        """Return what a listing would have shown so many changes ago."""
        found = {item.key: item for item in listed}
        with self._one_at_a_time:
            undone = self._changes[-changes:] if changes > 0 else []
        for key, was in reversed(undone):
            if not key.startswith(prefix) or (not deep and "/" in key[len(prefix) :]):
                continue
            if was is None:
                found.pop(key, None)
            else:
                found[key] = was
        return iter(sorted(found.values(), key=lambda item: item.key))
