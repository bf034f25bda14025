"""The catalog by path, for those that only look. Imports no torch."""

from __future__ import annotations

import os

from holdfast.errors import CheckpointNotFoundError
from holdfast.format import reading
from holdfast.records import Manifest
from holdfast.scanning import Found, newest_first, scan, scan_aside
from holdfast.source import BlobSource
from holdfast.storage import open_store, split_path

__all__ = ["Found", "has_checksums", "is_directory", "newest_first", "read_manifest_at", "scan_aside_path", "scan_path"]


def is_directory(path: str) -> bool:
    """Tell whether a path is a directory, or a URL with blobs below it."""
    store = open_store(path)
    return os.path.isdir(store.root) if store.is_local else bool(store.blobs(depth=1))


def scan_path(path: str, *, depth: int) -> list[Found]:
    """Return the checkpoints below a directory, sorted by name.

    Raises:
        CheckpointNotFoundError: if there is no such directory.

    """
    if not is_directory(path):
        what = "that is a file: use `holdfast show`" if os.path.isfile(path) else "there is nothing of that name"
        msg = f"there is no directory {path}: {what}"
        raise CheckpointNotFoundError(msg)
    return scan(open_store(path), extension=None, depth=depth)


def scan_aside_path(path: str, *, depth: int) -> list[str]:
    """Return the paths of the damaged checkpoints that were set aside below a directory, sorted by name."""
    store = open_store(path)
    return [store.path(name) for name in scan_aside(store, depth=depth)]


def has_checksums(path: str) -> bool:
    """Tell whether a file is a zip; torch's older files hold nothing that they could be checked against."""
    root, name = split_path(path)
    store = open_store(root)
    return reading.looks_like_zip(BlobSource(store, name, store.size(name)))


def read_manifest_at(path: str) -> Manifest | None:
    """Return the manifest of one checkpoint file; None if it has none.

    Raises:
        CheckpointNotFoundError: if there is no such file.
        DamagedCheckpointError: if its manifest cannot be read.

    """
    root, name = split_path(path)
    store = open_store(root)
    try:
        return reading.read_manifest(BlobSource(store, name, store.size(name)))
    except (FileNotFoundError, IsADirectoryError) as error:
        msg = f"there is no checkpoint file {path}"
        raise CheckpointNotFoundError(msg) from error
