"""Loading that refuses what is damaged and runs no code that was not allowed."""

from __future__ import annotations

import errno
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeVar

import torch

from holdfast.directories import far_blob, is_sharded_at, no_single_file
from holdfast.engine.filling import TENSORS, fill
from holdfast.engine.foreign import verify_foreign
from holdfast.engine.globals import needed_globals, permitting
from holdfast.engine.into import Into, part_misfits
from holdfast.engine.unpickling import MapLocation, suits, unpickle
from holdfast.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    DamagedCheckpointError,
    LoadError,
    NewerFormatError,
    UnsafeCheckpointError,
    printable,
)
from holdfast.format import reading
from holdfast.records import Manifest
from holdfast.source import BlobSource, FarSource, FileSource, as_file
from holdfast.storage import Blob, Store, open_regular, open_store, split_path, use_options
from holdfast.storage.standing import standing

T = TypeVar("T")
Progress = Callable[[int], None]


@dataclass(frozen=True)
class _How:
    """What ``load`` was asked for, and what it may write over."""

    map_location: MapLocation
    weights_only: bool = True
    verify: bool = True
    into: Into | None = None


def load(  # noqa: PLR0913 - torch.load's words, and what is checked
    path: str | os.PathLike[str],
    *,
    map_location: MapLocation = "cpu",
    allow_unsafe: bool = False,
    weights_only: bool | None = None,
    verify: bool | None = None,
    mmap: bool = False,
    allow: Sequence[Any] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Load a checkpoint, after checking that every byte of it is as it was saved.

    The bytes that were checked are those in the tensors: they are read once, into memory that has no
    tie to the file. That is the memory of the whole state at first, also when it goes to another device.

    Args:
        path: file or fsspec URL; any file that ``torch.save`` writes will do. Or the directory of a sharded
            checkpoint, ours or of ``torch.distributed.checkpoint``: the whole state, nested and no longer sharded.
        map_location: where the tensors go, as for ``torch.load``; of a sharded one a device.
        allow_unsafe: False (default) builds tensors and plain values only, and runs no code from the
            file. True runs whatever code the file names: only for a file that you would run as a program.
        weights_only: torch's and Lightning's word for the opposite. None (default) goes by
            ``allow_unsafe``; False is ``allow_unsafe=True``.
        verify: None (default) means True, and False with ``mmap``. False, without ``mmap``, checks
            nothing: for a look at what is left of a damaged file. A file without a manifest is checked
            against the zip's own checksums.
        mmap: True maps the file instead of reading it, as ``torch.load(mmap=True)`` does: for a look
            into a few of its tensors. The tensors' bytes are checked only with ``verify=True``, which
            reads them all first; all else is checked. The tensors may be written to, which
            does not change the file; a file that is cut off or overwritten while they are in use ends
            the process or changes them.
        allow: further classes and functions that the safe loader may use.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        DamagedCheckpointError: if the bytes are not those that were saved; it names the record.
        NewerFormatError: if a later holdfast wrote it.
        UnsafeCheckpointError: if the file needs classes that are not allowed; it names them.
        ConfigurationError: if ``allow_unsafe`` and ``weights_only`` contradict each other.

    """
    use_options(storage_options, path)
    if allow_unsafe and weights_only:
        msg = f"`allow_unsafe`={allow_unsafe!r} contradicts `weights_only`={weights_only!r}: pass one of them"
        raise ConfigurationError(msg)
    safe = not allow_unsafe and weights_only is not False
    known = far_blob(path)
    if known is None and is_sharded_at(path):
        from holdfast.engine.whole_state import load_whole_state  # noqa: PLC0415 - torch.distributed is slow to import

        return load_whole_state(path, map_location, safe=safe, verify=verify is not False, allow=allow)
    how = _How(map_location, weights_only=safe, verify=not mmap if verify is None else verify)
    permitted = permitting(allow) if safe else nullcontext()
    if known is not None and not mmap:
        far, build = _with_far(os.fspath(path), known, lambda far: (far, _from_memory(far, how)))
        if build is not None:
            with permitted, _told(os.fspath(path)):
                return built(build, far.path, as_file(far), weights_only=safe)
    return _load_file(os.fspath(path), how, permitted, mmap=mmap)


def _load_file(path: str, how: _How, permitted: AbstractContextManager[object], *, mmap: bool) -> Any:
    map_location, safe = how.map_location, how.weights_only
    with opened(path) as (source, file):
        build = None if mmap else _from_memory(source, how)
        if build is None:
            if how.verify:
                check_whole(source, file)
            elif mmap:
                _glance(source)
            file.seek(0)
            name = _mappable(source, file) if mmap else file
            build = partial(torch.load, name, map_location=map_location, weights_only=safe, mmap=mmap)
        with permitted:
            return built(build, source.path, file, weights_only=safe)


def load_into(path: str | os.PathLike[str], into: Into, *, allow: Sequence[Any] = ()) -> Any:
    """Load as ``load`` does, over living tensors where that can be: those of the state are then the same memory.

    They hold the values before whoever takes the state has taken it; ``into`` knows whether any was touched.

    Raises:
        LoadError: as ``load``.

    """
    how = _How("cpu", into=into)
    known = far_blob(path)
    if known is not None:
        far, build = _with_far(os.fspath(path), known, lambda far: (far, _from_memory(far, how)))
        if build is not None:
            with permitting(allow), _told(os.fspath(path)):
                return built(build, far.path, as_file(far), weights_only=True)
    else:
        with opened(os.fspath(path)) as (source, file):
            build = _from_memory(source, how)
            if build is not None:
                with permitting(allow):
                    return built(build, source.path, file, weights_only=True)
    return load(path, allow=allow)


def _from_memory(source: FileSource | BlobSource, how: _How) -> Callable[[], Any] | None:
    """Read and check all records; return what builds the state from them. None if ``torch.load`` has to read."""
    try:
        account = reading.read_account(source)
    except (DamagedCheckpointError, NewerFormatError):
        if how.verify:
            raise
        return None
    if account is None:
        return None
    placed = list(account.placed)
    if not suits([item.record.name for item in placed], how.map_location, weights_only=how.weights_only):
        return None
    contents = fill(source, account, verify=how.verify, into=how.into)

    def build() -> Any:
        state = unpickle(contents, placed, how.map_location, weights_only=how.weights_only)
        if how.into is not None:
            part_misfits(state, contents.homes, how.into)
        return state

    return build


def _glance(source: FileSource) -> None:
    """Check what a file says of itself, and every byte that is not a tensor's."""
    account = reading.read_account(source)
    if account is not None:
        reading.check_framing(source, account, lambda name: not name.startswith(TENSORS))


def _mappable(source: FileSource, file: BinaryIO) -> str:
    """Return a name of the open file: what was checked is what is mapped."""
    own = f"/proc/self/fd/{file.fileno()}"
    return own if os.path.exists(own) else source.path


def built(build: Callable[[], Any], path: str, file: BinaryIO, *, weights_only: bool) -> Any:
    """Build a state; turn what goes wrong into the errors of ``load``."""
    try:
        return build()
    except pickle.UnpicklingError as error:
        needs = tuple(needed_globals(file))
        if not weights_only or not needs:
            problem = f"it cannot be unpickled: {str(error).partition(chr(10))[0]}"
            raise DamagedCheckpointError(path, "record data.pkl", problem) from error
        raise UnsafeCheckpointError(_what_to_allow(path, needs), needs) from error
    except Exception as error:  # what a pickle can make of the bytes of a stranger knows no bounds
        msg = printable(f"{path} cannot be loaded: {type(error).__name__}: {error}")
        raise LoadError(msg) from error


def _what_to_allow(path: str, needs: tuple[str, ...]) -> str:
    names = printable(", ".join(needs))
    short = printable(", ".join(name.rpartition(".")[2] for name in needs))
    return (
        f"{printable(path)} holds objects that the safe loader does not build: {names}. If you trust these classes, "
        f"import them and pass allow=[{short}] to holdfast.load, or to CheckpointIO under Lightning, or call "
        f"torch.serialization.add_safe_globals([{short}]) before loading. If you trust the whole file, "
        "allow_unsafe=True (weights_only=False under Lightning) runs whatever code it names"
    )


@contextmanager
def opened(path: str) -> Iterator[tuple[FileSource, BinaryIO]]:
    """Open a checkpoint as a local file; a remote one is fetched to a temporary file first."""
    root, name = split_path(path)
    store = open_store(root)
    with _told(path):
        if store.is_local:
            with open_regular(store.path(name)) as file:
                yield FileSource(path, file), file
        else:
            with tempfile.TemporaryFile(prefix="holdfast-") as file:
                _fetch(store, name, file)
                yield FileSource(path, file), file


def _with_far(path: str, known: Blob, use: Callable[[FarSource], T], progress: Progress | None = None) -> T:
    """Use a checkpoint behind a URL that has just been listed.

    Once more, and looked at anew, where it seems to be damaged and has been written since; and where what seems to be
    damaged is what it says of itself, which comes by one request, and may have come wrong.
    """
    root, name = split_path(path)
    store = open_store(root)
    with _told(path):
        try:
            return use(FarSource(store, name, known.size, progress=progress))
        except DamagedCheckpointError as error:
            size, stamp = store.size(name), standing(store, name).blob
            same = stamp is not None and (size, stamp.stamp) == (known.size, known.stamp)
            if same and error.record.startswith("record "):
                raise
            return use(FarSource(store, name, size))


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the system says of a path into the errors of ``load``."""
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error, LoadError):
            raise
        msg = f"there is no checkpoint at {path}"
        if error.errno == errno.ENOENT and error.strerror != os.strerror(errno.ENOENT):
            msg = f"{msg}: {error.strerror}"
        raise CheckpointNotFoundError(msg) from error
    except IsADirectoryError as error:
        if is_sharded_at(path):
            raise no_single_file(path) from error
        msg = f"{path} is a directory, not a checkpoint file"
        raise CheckpointNotFoundError(msg) from error
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error


def _fetch(store: Store, name: str, file: BinaryIO) -> None:
    source = BlobSource(store, name, store.size(name))

    def take(offset: int, data: memoryview) -> None:
        written = 0
        while written < len(data):
            written += os.pwrite(file.fileno(), data[written:], offset + written)

    source.pour(source.size, take)
    length = os.fstat(file.fileno()).st_size
    if length != source.size:
        raise DamagedCheckpointError(source.path, "the transfer", f"it ended after {length} of {source.size} bytes")


def verify_far(path: str | os.PathLike[str], known: Blob, progress: Progress | None = None) -> Manifest | None:
    """Check a checkpoint behind a URL, which has just been listed, as its bytes come; None for one without a manifest.

    Raises:
        CheckpointNotFoundError, DamagedCheckpointError, NewerFormatError: as ``verify``.

    """
    return _with_far(os.fspath(path), known, reading.verify, progress)


def check_whole(source: FileSource, file: BinaryIO) -> Manifest | None:
    """Check every byte of an open file; return its manifest, or None if it has none."""
    manifest = reading.verify(source)
    if manifest is None:
        verify_foreign(source, file)
    return manifest
