"""Checking many checkpoints at once, and saying of each what was found."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from holdfast.directories import (
    Directory,
    is_sharded,
    stands_sharded,
    strangers,
    verify_directory,
    with_directory,
)
from holdfast.engine import verify
from holdfast.engine.load import verify_far
from holdfast.errors import (
    CheckpointNotFoundError,
    DamagedCheckpointError,
    LoadError,
    NewerFormatError,
    SignatureError,
    printable,
)
from holdfast.front.catalogue import below, has_checksums
from holdfast.records import Manifest
from holdfast.scanning import EXTENSION, Found, Survey, look
from holdfast.storage import Blob, is_local, open_store, split_path, use_options
from holdfast.storage.standing import standing

_LOCAL_THREADS = 4  # files at once; a large one is read by several threads of its own
_REMOTE_THREADS = 8  # each waits for its requests

_NO_CHECKSUMS = {
    False: "a torch file of the old kind has no checksums: it cannot be verified",
    True: "a directory of shards without a manifest has no checksums: it cannot be verified",
}

_Progress = Callable[[int], None]


@dataclass(frozen=True)
class Verified:
    """What was found of one checkpoint.

    Attributes:
        path: the file, or the directory of a sharded one.
        size: its bytes.
        whole: whether every byte is as it was saved; None where that cannot be known: a torch file of before the
            zip has no checksums, a later holdfast's format cannot be read, a signature is not as asked.
        record: the part of a damaged file that is wrong, such as ``record data/3 (state_dict.weight)``.
        problem: what is wrong, or why nothing can be known; "" for what is whole, unless the directory of a sharded one
            has files that were not saved with it.
        has_manifest: whether it was checked against a manifest; without one the zip's own checksums are all there is.
        signed: whether it is signed with the key that was given; None without a key, or if it was not looked at.

    """

    path: str
    size: int
    whole: bool | None
    record: str = ""
    problem: str = ""
    has_manifest: bool = False
    signed: bool | None = None


def verify_all(
    path: str | os.PathLike[str],
    *,
    key: Any = None,
    progress: _Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Verified]:
    """Check every byte of one checkpoint, or of all below a directory, several at a time.

    Args:
        path: a checkpoint, or a directory of runs at any depth; or an fsspec URL of either.
        key: an ed25519 public key, as for ``verify``: each must also be signed by its owner.
        progress: called with each amount of bytes done, from several threads.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Returns:
        what was found of each, in the order of their names. A damaged or unreadable one hides no other.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.
        ConfigurationError: if the key is none.
        MissingExtraError: if a key is given and the package ``cryptography`` is not installed.

    """
    use_options(storage_options, path)
    return verify_each(to_verify(os.fspath(path)), key=key, progress=progress)


def to_verify(path: str) -> list[Found]:
    """Return the checkpoints below a directory, or the one at a path. What is remote has not been read.

    Raises:
        CheckpointNotFoundError: if there is nothing at the path.

    """
    return looked_at(path)[0]


def looked_at(path: str) -> tuple[list[Found], Survey | None]:
    """Return what is to be verified at a path, and what the directory holds if it is one. Raises as ``to_verify``."""
    alone = None if is_local(path) or not path.endswith(EXTENSION) else _alone(path)
    seen = below(path, unread=True) if alone is None else None
    if seen is not None:
        return seen.found, seen
    alone = alone or _alone(path)
    if alone is None:
        msg = f"there is no checkpoint at {printable(path)}"
        raise CheckpointNotFoundError(msg)
    return [alone], None


def _alone(path: str) -> Found | None:
    """Return the one checkpoint at a path, by one request; None if there is none."""
    root, name = split_path(path)
    store = open_store(root)
    if not store.is_local:
        there = standing(store, name)
        if there.blob is None or there.blob.bundle:
            return look(store, name, there) if stands_sharded(there) else None
        return Found(name, path, there.blob.size, stamp=there.blob.stamp)
    if not store.exists(name):
        return None
    try:
        return Found(name, path, look(store, name).size, sharded=is_sharded(store, name))
    except OSError:  # a link that leads nowhere: the check says so
        return Found(name, path, 0)


def verify_each(files: Sequence[Found], *, key: Any = None, progress: _Progress | None = None) -> list[Verified]:
    """Check every byte of these files; as ``verify_all``."""

    def check(item: Found) -> Verified:
        counted = _Counted(progress)
        try:
            return _check(item, key, counted)
        except CheckpointNotFoundError as error:
            if len(files) == 1:
                raise
            return Verified(item.path, item.size, whole=None, problem=str(error))  # removed since it was listed
        finally:
            counted.settle(item.size)

    if len(files) == 1:
        return [check(files[0])]
    threads = _LOCAL_THREADS if not files or is_local(files[0].path) else _REMOTE_THREADS
    with ThreadPoolExecutor(threads, "holdfast-verify") as pool:
        return list(pool.map(check, files))


def _check(item: Found, key: Any, progress: _Progress) -> Verified:
    path, size = item.path, item.size
    if item.problem and not size and not item.damaged:  # a folder that may not be read, a pipe that would be waited for
        return Verified(path, size, whole=None, problem=item.problem)
    problem = ""
    try:
        if key is None and item.sharded:
            manifest, problem = with_directory(path, lambda found: _check_directory(found, progress))
        elif key is None and size and not is_local(path):
            split = split_path(path)[1]
            manifest = verify_far(path, Blob(split, size, stamp=item.stamp), progress) or verify(path)
        else:
            manifest = verify(path, key=key, progress=progress)
        sure = manifest is not None or key is not None or has_checksums(path)
    except DamagedCheckpointError as error:
        return Verified(path, size, whole=False, record=error.record, problem=error.problem)
    except NewerFormatError as error:
        return Verified(path, size, whole=None, problem=f"its {error.problem}")
    except SignatureError as error:
        return Verified(path, size, whole=None, problem=error.problem, signed=False)
    except CheckpointNotFoundError:
        raise
    except OSError as error:
        return Verified(path, size, whole=None, problem=f"it cannot be read: {error.strerror or error}")
    problem = problem if sure else _NO_CHECKSUMS[item.sharded]
    if manifest is not None and item.sharded and key is not None:
        problem = _left_out(path, manifest)
    signed = None if key is None else True
    return Verified(path, size, sure or None, "", problem, has_manifest=manifest is not None, signed=signed)


def _left_out(path: str, manifest: Manifest) -> str:
    """Say what lies in a sharded checkpoint's directory and was not saved with it; "" if nothing does."""
    try:
        return with_directory(path, lambda found: _others(found, manifest))
    except (LoadError, OSError):  # removed by now
        return ""


def _check_directory(found: Directory, progress: _Progress) -> tuple[Manifest | None, str]:
    """Check every byte of a sharded checkpoint; say what lies in its directory besides."""
    manifest = verify_directory(found, progress)
    return manifest, "" if manifest is None else _others(found, manifest)


def _others(found: Directory, manifest: Manifest) -> str:
    others = strangers(found, manifest)
    return f"not saved with it, and not checked: {', '.join(map(printable, others))}" if others else ""


class _Counted:
    """Hands progress on, and makes up for what was not read in the end, so that all files add up."""

    def __init__(self, progress: _Progress | None) -> None:
        self._progress = progress
        self._told = 0
        self._lock = threading.Lock()

    def __call__(self, done: int) -> None:
        with self._lock:
            self._told += done
        if self._progress is not None:
            self._progress(done)

    def settle(self, size: int) -> None:
        if self._progress is not None and self._told < size:
            self._progress(size - self._told)
