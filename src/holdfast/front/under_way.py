"""The files that saves of this process are about to write: no other save may be given their names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from weakref import WeakSet

from holdfast.storage import Store


class Writer(Protocol):
    """One who saves behind the training's back."""

    def paths_under_way(self) -> Iterable[str]:
        """Return the paths of its saves that are not known to be committed."""
        ...


_writers: WeakSet[Writer] = WeakSet()


def announce(writer: Writer) -> None:
    """Let the others ask this one, as long as it lives."""
    _writers.add(writer)


def names_of_others(writer: Writer, store: Store) -> frozenset[str]:
    """Return the names in a store that the saves of others are on their way to."""
    paths = (path for other in list(_writers) if other is not writer for path in other.paths_under_way())
    return frozenset(name for path in paths if (name := store.name_of(path)) is not None)
