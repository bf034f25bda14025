"""Sharded checkpoints as they lie on disk: what their directories say of themselves, and whether all of it is whole.

Every byte is checked, from the manifest down to each tensor. Imports no torch.

The directory stays open: what is checked is one and the same, also where its name goes to a newer one meanwhile
(``last.ckpt``). That removes the files of the old one, which is no damage: then the newer one is checked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, TypeVar

from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, NewerFormatError, printable
from holdfast.format import directory as form
from holdfast.format import reading, shards
from holdfast.format.manifest import LONGEST
from holdfast.format.pieces import Piece, Pieces
from holdfast.records import Manifest, Record
from holdfast.source import BlobSource, FileSource, TellingSource
from holdfast.storage import Store, is_local, open_regular, open_store, split_path

T = TypeVar("T")

_BLOCK = 1 << 20
_TRIES = 5  # of what has got another directory under its name while it was looked at
_THREADS = 4  # files side by side, where a file is read by one thread


def is_sealed(store: Store, name: str) -> bool:
    """Tell whether a sharded checkpoint of ours has this name: a directory with a manifest."""
    return store.is_local and store.exists(f"{name}/{form.MANIFEST_FILE}")


def is_sharded(store: Store, name: str) -> bool:
    """Tell whether a sharded checkpoint has this name: a directory of ours, or a plain one."""
    return is_sealed(store, name) or is_plain_directory(store, name)


def is_plain_directory(store: Store, name: str) -> bool:
    """Tell whether a directory that plain ``torch.distributed.checkpoint`` has made has this name."""
    if not store.is_local or not os.path.isfile(store.path(f"{name}/{form.METADATA_FILE}")):
        return False
    if is_sealed(store, name):
        return False
    return any(file.endswith(form.SHARD_SUFFIX) for file in os.listdir(store.path(name)))


def read_manifest(store: Store, name: str) -> Manifest | None:
    """Return the whole manifest of one checkpoint; None if it has none.

    Raises:
        OSError: if it cannot be read.
        DamagedCheckpointError: if it is not as it was written.
        NewerFormatError: if a later holdfast wrote it.

    """
    if not is_sharded(store, name):
        return reading.read_manifest(BlobSource(store, name, store.size(name)))
    if is_plain_directory(store, name):
        return None
    seal = f"{name}/{form.MANIFEST_FILE}"
    with manifest_errors(store.path(name)):
        size = store.size(seal)
        _check_length(size)
        return form.decode(store.read(seal, 0, size))


@contextmanager
def manifest_errors(path: str) -> Iterator[None]:
    """Make of what is wrong with a manifest the errors of a checkpoint."""
    try:
        yield
    except form.NewerManifestError as error:
        raise NewerFormatError(path, str(error)) from error
    except form.ManifestError as error:
        raise DamagedCheckpointError(path, form.MANIFEST_FILE, str(error)) from error


def _check_length(size: int) -> None:
    """See that a manifest can be read at once: a file full of holes may claim any size."""
    if size > LONGEST:
        msg = f"it has {size} bytes, of which at most {LONGEST} are read"
        raise form.ManifestError(msg)


def is_sharded_at(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is that of a sharded checkpoint: a directory of ours, or of plain DCP."""
    if not is_local(path):
        return False
    root, name = split_path(path)
    return is_sharded(open_store(root), name)


def no_single_file(path: str) -> LoadError:
    """Return the error for what can only be done with a checkpoint that is one file."""
    msg = (
        f"{printable(path)} is a sharded checkpoint, a directory of several files, and this reads single files alone. "
        f"`holdfast export {printable(path)} ONE.ckpt` makes one of it; `holdfast.load` loads it whole"
    )
    return LoadError(msg)


@dataclass(frozen=True)
class Directory:
    """An open directory that holds one checkpoint.

    Attributes:
        path: as it was given, for messages.
        descriptor: of the directory.

    """

    path: str
    descriptor: int

    def open(self, name: str) -> BinaryIO:
        """Open one of its files.

        Raises:
            DamagedCheckpointError: if it is not there, or is no file.

        """
        try:
            return open_regular(name, self.descriptor)
        except FileNotFoundError as error:
            missing = error.strerror == os.strerror(errno.ENOENT)
            raise self.damaged(name, "it is missing" if missing else str(error.strerror)) from error
        except IsADirectoryError as error:
            raise self.damaged(name, "a directory stands where a file was saved") from error

    def damaged(self, name: str, problem: str) -> DamagedCheckpointError:
        """Return the error for a file that is not as it was saved."""
        return DamagedCheckpointError(self.path, name, problem)

    def manifest(self) -> Manifest | None:
        """Read the manifest; None if there is none.

        Raises:
            DamagedCheckpointError: if it is not as it was written.
            NewerFormatError: if a later holdfast wrote it.

        """
        if form.MANIFEST_FILE not in os.listdir(self.descriptor):
            return None
        with self.open(form.MANIFEST_FILE) as file, manifest_errors(self.path):
            _check_length(os.fstat(file.fileno()).st_size)
            return form.decode(file.read(LONGEST))

    def is_still_there(self) -> bool:
        """Tell whether its name still leads to it."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.descriptor))
        except OSError:
            return False


def with_directory(path: str | os.PathLike[str], use: Callable[[Directory], T]) -> T:
    """Use the directory at a path; once more if another one has taken its name meanwhile.

    Raises:
        CheckpointNotFoundError: if there is none.
        DamagedCheckpointError: as ``use`` finds it, of a directory that still has its name.

    """
    text = os.fspath(path)
    root, name = split_path(text)
    place = open_store(root).path(name)
    for left in range(_TRIES, 0, -1):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"there is no sharded checkpoint at {printable(text)}"
            raise CheckpointNotFoundError(msg) from error
        found = Directory(place, descriptor)
        try:
            return use(found)
        except (DamagedCheckpointError, OSError):
            if left == 1 or found.is_still_there():
                raise
        finally:
            os.close(descriptor)
    raise AssertionError("the last try returns or raises")


def verify_directory(found: Directory, progress: Callable[[int], None] | None = None) -> Manifest | None:
    """Check every byte of a sharded checkpoint against its manifest; None if it has none.

    First what is quick: whether all files are there and have their sizes; then what each says of itself; then all
    bytes. Files that were not saved with it are not looked at.

    Raises:
        DamagedCheckpointError: naming the file, and the tensor in it.
        NewerFormatError: if a later holdfast wrote it.

    """
    manifest = found.manifest()
    if manifest is None:
        return None
    plans = [(record, _pieces(found, record)) for record in manifest.records]
    for record, pieces in plans:
        _check_bytes(found, record, pieces, progress)
    return manifest


def strangers(found: Directory, manifest: Manifest) -> list[str]:
    """Return the names in a directory of what was not saved with its checkpoint, sorted."""
    ours = {record.name for record in manifest.records} | {form.MANIFEST_FILE}
    return sorted(set(os.listdir(found.descriptor)) - ours)


def _pieces(found: Directory, record: Record) -> list[Piece]:
    """Return what the bytes of a file must be, as it says itself if it is a shard; its size is checked."""
    with found.open(record.name) as file:
        source = FileSource(record.name, file)
        if source.size != record.size:
            raise found.damaged(record.name, f"it has {source.size} bytes but {record.size} were saved")
        if not record.name.endswith(form.SHARD_SUFFIX):
            return [Piece("", 0, record.size, record.crc32)]
        try:
            table = shards.read_table(source)
        except shards.NewerShardError as error:
            raise NewerFormatError(found.path, f"{record.name}: {error}") from error
        except shards.ShardError as error:
            raise found.damaged(record.name, str(error)) from error
    if table is None:
        raise found.damaged(record.name, "its end, where its table was, is not as it was saved")
    if table.crc32 != record.crc32:
        raise found.damaged(record.name, "its table is not the one that was saved: it is of another checkpoint")
    return [Piece(region.label, region.offset, region.length, region.crc32) for region in table.regions]


def _check_bytes(
    found: Directory, record: Record, plan: Sequence[Piece], progress: Callable[[int], None] | None
) -> None:
    pieces = Pieces(plan)
    with found.open(record.name) as file:
        source = FileSource("", file) if progress is None else TellingSource("", file, progress)
        source.pour(pieces.end, pieces.take)
    problem = pieces.problem()
    if problem is not None:
        label, what = problem
        raise found.damaged(f"{record.name} ({label})" if label else record.name, what)


def digest_directory(found: Directory) -> tuple[bytes, int]:
    """Return one SHA-256 for all bytes of a sharded checkpoint, and how many they are.

    It is that of the list of its files, by name, each with its size and its own SHA-256. Of a directory with a
    manifest these are the files that it names and itself; of any other one all that are there.

    Raises:
        DamagedCheckpointError: if one is missing.

    """
    manifest = found.manifest()
    if manifest is None:
        names = [name for name in os.listdir(found.descriptor) if _is_file(found, name)]
    else:
        names = [form.MANIFEST_FILE, *(record.name for record in manifest.records)]
    from holdfast.storage.direct_read import in_threads  # noqa: PLC0415 - with ctypes: not for those who only look

    lines: dict[str, str] = {}
    sizes: list[int] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        with found.open(name) as file:
            digest, size = _digest(file)
        with lock:
            lines[name] = f"{digest} {size} {name}\n"
            sizes.append(size)

    in_threads(work, names, _THREADS)
    listing = "".join(lines[name] for name in sorted(lines))
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).digest(), sum(sizes)


def _is_file(found: Directory, name: str) -> bool:
    try:
        found.open(name).close()
    except DamagedCheckpointError:
        return False
    return True


def _digest(file: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for block in iter(partial(file.read, _BLOCK), b""):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size
