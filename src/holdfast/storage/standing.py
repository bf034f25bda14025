"""What stands under one name: a file, a bundle, or other files in a folder. One request where that is a trip."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from holdfast.storage.contract import SEAL, Blob, Store


@dataclass(frozen=True)
class Standing:
    """What has a name, or begins like it, at one moment.

    Attributes:
        name: relative to the store's root.
        blob: the file or the bundle of this name; None if there is neither. An object store may have both, for the
            moment in which one takes the other's place: then it is the newer one.
        files: the files right in the folder of this name, by their names in it; there may be such without a bundle.
        beside: where single files are: this name, also where it is a bundle's for the moment, and this name with the
            endings that were asked for.

    """

    name: str
    blob: Blob | None = None
    files: tuple[Blob, ...] = ()
    beside: frozenset[str] = frozenset()


@runtime_checkable
class Asked(Protocol):
    """A store that can be asked for all of it at once."""

    def standing(self, name: str, endings: Collection[str] = ()) -> Standing:
        """Return what has a name; as the function does."""
        ...

    def discard(self, name: str, endings: Collection[str] = (), known: Standing | None = None) -> None:
        """Remove what has a name, and what belongs to it; as the function does."""
        ...


@runtime_checkable
class Moving(Protocol):
    """A store that has no step in which a name is changed, and does it in two."""

    def move_by_copy(self, name: str, target: str) -> None:
        """Copy what has a name to another one, then remove it: for what nobody counts on by either name."""
        ...


def stamp_of(blob: Blob) -> tuple[int, ...] | None:
    """Return what ``Store.stamp`` says of a remote blob that was listed: its size and its etag; None without one."""
    return (blob.size, stamp_number(blob.stamp)) if blob.stamp else None


def stamp_number(etag: str) -> int:
    """Return an etag as a number, as it is in ``Store.stamp``."""
    return int.from_bytes(etag.encode(), "big")


def standing(store: Store, name: str, endings: Collection[str] = ()) -> Standing:
    """Return what has a name, and which of the names with these endings are there.

    Raises:
        OSError: if that cannot be asked.

    """
    if isinstance(store, Asked):
        return store.standing(name, endings)
    try:
        files, blob = tuple(store.files(name)), None
    except (FileNotFoundError, NotADirectoryError):  # of what lies above a root, a store may know nothing
        return Standing(name)
    if store.exists(name):
        bundle = any(file.name == SEAL for file in files)
        blob = Blob(name, store.size(f"{name}/{SEAL}" if bundle else name), bundle=bundle)
    own = {name} if blob is not None and not blob.bundle else set()
    return Standing(name, blob, files, frozenset(own.union(name + end for end in endings if store.exists(name + end))))


def discard(store: Store, name: str, endings: Collection[str] = (), known: Standing | None = None) -> None:
    """Remove what has a name, then the files of this name with these endings. What is not there is no error.

    Args:
        store: where it lies.
        name: the file's, or the bundle's.
        endings: of what belongs to it, such as its signature.
        known: what ``standing`` has just returned, which spares the question.

    Raises:
        OSError: if it cannot be removed.

    """
    if isinstance(store, Asked):
        store.discard(name, endings, known)
        return
    store.remove(name)
    for ending in endings:
        store.remove(name + ending)
