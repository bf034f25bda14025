"""Directories by path, for those that only look. Imports no torch."""

from __future__ import annotations

import os

from holdfast.directories import are_of_a_checkpoint, is_sharded, is_sharded_at, read_manifest
from holdfast.errors import CheckpointNotFoundError, printable
from holdfast.format import reading
from holdfast.records import Manifest
from holdfast.scanning import Found, Survey, name_before, survey, survey_of
from holdfast.source import BlobSource
from holdfast.storage import is_local, open_store, split_path
from holdfast.storage.standing import standing

__all__ = [
    "aside",
    "below",
    "checkpoints_below",
    "has_checksums",
    "is_directory",
    "leftovers",
    "read_manifest_at",
    "size_at",
]

_DEPTH = 100  # folders below a directory: any number that people nest runs in


def is_directory(path: str) -> bool:
    """Tell whether a path is a directory and no sharded checkpoint, or a URL with blobs below it."""
    store = open_store(path)
    if store.is_local:
        return os.path.isdir(store.root) and not is_sharded_at(path)
    names = [blob.name for blob in store.blobs(depth=1)]
    return bool(names) and not are_of_a_checkpoint(names)


def checkpoints_below(path: str) -> list[Found]:
    """Return the checkpoints below a directory, sorted by name; also what is called like one and cannot be read.

    Raises:
        CheckpointNotFoundError: if there is no such directory.

    """
    seen = below(path)
    if seen is None:
        msg = f"there is no directory {printable(path)}"
        raise CheckpointNotFoundError(msg)
    return seen.found


def below(path: str, *, unread: bool = False) -> Survey | None:
    """Return what a directory of runs holds; None if the path is none. Of a remote one by one listing.

    ``unread``: as ``survey``.
    """
    store = open_store(path)
    if store.is_local:
        return survey(store, depth=_DEPTH) if is_directory(path) else None
    blobs = store.blobs(_DEPTH)
    if not blobs or are_of_a_checkpoint([blob.name for blob in blobs]):
        return None
    return survey_of(store, blobs, {}, unread=unread)


def aside(path: str, seen: Survey | None = None) -> list[str]:
    """Return the paths of the damaged checkpoints that were set aside below a directory, sorted by name."""
    store = open_store(path)
    if seen is not None:
        return [store.path(name) for name in seen.aside]
    odd: dict[str, str] = {}  # what may not be read is listed elsewhere
    return [store.path(blob.name) for blob in store.blobs(_DEPTH, odd) if name_before(blob.name) != blob.name]


def leftovers(path: str) -> list[str]:
    """Return the paths of unfinished writes below a directory, sorted by name."""
    store = open_store(path)
    return [store.path(name) for name in store.leftovers(_DEPTH)]


def has_checksums(path: str) -> bool:
    """Tell whether a file is a zip; torch's older files, and plain DCP's directories, have no checksums to check."""
    root, name = split_path(path)
    store = open_store(root)
    return not is_sharded(store, name) and reading.looks_like_zip(BlobSource(store, name, store.size(name)))


def read_manifest_at(path: str) -> Manifest | None:
    """Return the manifest of one checkpoint; None if it has none.

    Raises:
        CheckpointNotFoundError: if there is no such file.
        DamagedCheckpointError: if its manifest cannot be read.

    """
    root, name = split_path(path)
    store = open_store(root)
    try:
        return read_manifest(store, name)
    except (FileNotFoundError, IsADirectoryError) as error:
        msg = f"there is no checkpoint file {path}"
        raise CheckpointNotFoundError(msg) from error


def size_at(path: str) -> int:
    """Return the bytes of a checkpoint, or of the files below a directory.

    Raises:
        CheckpointNotFoundError: if there is neither.

    """
    root, name = split_path(path.rstrip("/") or path)
    if name and not is_local(path):
        there = standing(open_store(root), name)
        if there.blob is not None:
            return sum(file.size for file in there.files) if there.blob.bundle else there.blob.size
    try:
        if not is_directory(path):
            return open_store(root).size(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"there is nothing at {path}"
        raise CheckpointNotFoundError(msg) from error
    odd: dict[str, str] = {}  # what may not be read is told of by what reads it
    store = open_store(path)
    return sum(store.size(blob.name) if blob.bundle else blob.size for blob in store.blobs(_DEPTH, odd))
