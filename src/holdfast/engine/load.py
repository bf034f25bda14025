"""Loading that refuses what is damaged and runs no code that was not allowed."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import torch

from holdfast.engine.globals import HARMLESS, needed_globals
from holdfast.errors import (
    CheckpointNotFoundError,
    DamagedCheckpointError,
    LoadError,
    UnsafeCheckpointError,
)
from holdfast.format import reading
from holdfast.records import Manifest
from holdfast.source import FileSource
from holdfast.storage import Store, open_store, split_path

_BLOCK = 1 << 24
_TAR_MAGIC_OFFSET = 257

MapLocation = str | torch.device | dict[str, str] | Callable[[Any, str], Any] | None


def load(
    path: str | os.PathLike[str],
    *,
    map_location: MapLocation = "cpu",
    weights_only: bool = True,
    verify: bool = True,
    allow: Sequence[Any] = (),
) -> Any:
    """Load a checkpoint file, after checking that every byte of it is as it was saved.

    Args:
        path: file or fsspec URL; any file that ``torch.save`` writes will do.
        map_location: where the tensors go, as for ``torch.load``.
        weights_only: True (default) builds tensors and plain values only and runs no code from the
            file; False trusts the file entirely.
        verify: False skips the check of the bytes. A file without a manifest is checked against the
            zip's own checksums.
        allow: further classes and functions that the safe loader may use.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the bytes are not those that were saved; it names the record.
        UnsafeCheckpointError: if the file needs classes that are not allowed; it names them.

    """
    with _opened(os.fspath(path)) as (source, file):
        if verify:
            _verify(source, file)
        file.seek(0)
        if not weights_only:
            return _read(source.path, file, map_location, weights_only=False)
        with torch.serialization.safe_globals([*HARMLESS, *allow]):
            return _read(source.path, file, map_location, weights_only=True)


def verify(path: str | os.PathLike[str]) -> Manifest | None:
    """Check every byte of a checkpoint file against its manifest, and return the manifest.

    Returns None for a whole file that was saved without a manifest.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the bytes are not those that were saved; it names the record.

    """
    with _opened(os.fspath(path)) as (source, file):
        return _verify(source, file)


def _read(path: str, file: BinaryIO, map_location: MapLocation, *, weights_only: bool) -> Any:
    try:
        return torch.load(file, map_location=map_location, weights_only=weights_only)
    except pickle.UnpicklingError as error:
        needs = tuple(needed_globals(file))
        if not weights_only or not needs:
            problem = f"it cannot be unpickled: {str(error).splitlines()[0]}"
            raise DamagedCheckpointError(path, "record data.pkl", problem) from error
        raise UnsafeCheckpointError(_what_to_allow(path, needs), needs) from error
    except Exception as error:  # what a pickle can make of the bytes of a stranger knows no bounds
        msg = f"{path} cannot be loaded: {type(error).__name__}: {error}"
        raise LoadError(msg) from error


def _what_to_allow(path: str, needs: tuple[str, ...]) -> str:
    names = ", ".join(needs)
    short = ", ".join(name.rpartition(".")[2] for name in needs)
    return (
        f"{path} holds objects that the safe loader does not build: {names}. If you trust these classes, "
        f"import them and pass allow=[{short}] to holdfast.load, or to CheckpointIO under Lightning, or call "
        f"torch.serialization.add_safe_globals([{short}]) before loading. If you trust the whole file, "
        "weights_only=False runs whatever code it names"
    )


@contextmanager
def _opened(path: str) -> Iterator[tuple[FileSource, BinaryIO]]:
    """Open a checkpoint as a local file; a remote one is fetched to a temporary file first."""
    root, name = split_path(path)
    store = open_store(root)
    try:
        if store.is_local:
            with open(store.path(name), "rb") as file:
                yield FileSource(path, file), file
        else:
            with tempfile.TemporaryFile(prefix="holdfast-") as file:
                _fetch(store, name, file)
                yield FileSource(path, file), file
    except FileNotFoundError as error:
        if isinstance(error, LoadError):
            raise
        msg = f"there is no checkpoint at {path}"
        raise CheckpointNotFoundError(msg) from error
    except IsADirectoryError as error:
        msg = f"{path} is a directory, not a checkpoint file"
        raise CheckpointNotFoundError(msg) from error


def _fetch(store: Store, name: str, file: BinaryIO) -> None:
    offset, size = 0, store.size(name)
    while offset < size:
        block = store.read(name, offset, min(_BLOCK, size - offset))
        if not block:
            raise DamagedCheckpointError(store.path(name), "the transfer", f"it ended after {offset} bytes")
        file.write(block)
        offset += len(block)
    file.flush()


def _verify(source: FileSource, file: BinaryIO) -> Manifest | None:
    manifest = reading.verify(source)
    if manifest is None:
        if source.size == 0:
            raise DamagedCheckpointError(source.path, "the file", "it is empty")
        if reading.looks_like_zip(source):
            _verify_foreign(source, file)
        elif not _looks_like_old_torch(source):
            raise DamagedCheckpointError(source.path, "the file", "its beginning is that of no checkpoint")
    return manifest


def _looks_like_old_torch(source: FileSource) -> bool:
    """Tell whether a file begins like those of torch before 1.6: pickles, earlier still a tar archive."""
    return source.read(0, 1) == b"\x80" or source.read(_TAR_MAGIC_OFFSET, 5) == b"ustar"


def _verify_foreign(source: FileSource, file: BinaryIO) -> None:
    """A zip that another program wrote: its own checksums are all there is to go by."""
    try:
        with zipfile.ZipFile(file) as archive:
            bad = archive.testzip()
    except Exception as error:  # zipfile lets struct's, lzma's and its own many errors through
        raise DamagedCheckpointError(source.path, "the zip", str(error)) from error
    if bad is not None:
        raise DamagedCheckpointError(source.path, f"record {bad}", "its CRC-32 does not match")
