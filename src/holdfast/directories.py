"""Sharded checkpoints as they lie on disk: what their directories say of themselves, and whether all of it is whole.

Every byte is checked, from the manifest down to each tensor. Imports no torch.

The directory stays open, or what is behind a URL is held to its manifest: what is checked is one and the same, also
where its name goes to a newer one meanwhile (``last.ckpt``). That removes the files of the old one, which is no damage:
then the newer one is checked.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, NewerFormatError, printable
from holdfast.folders import Folder, FolderSource, open_folder
from holdfast.format import directory as form
from holdfast.format import reading, shards
from holdfast.format.manifest import LONGEST
from holdfast.format.pieces import Piece, Pieces
from holdfast.records import Manifest, Record
from holdfast.source import FAR_PIECE, BlobSource, TailSource, read_end, telling
from holdfast.storage import Blob, Store, open_store, split_path
from holdfast.storage.marks import mark_of
from holdfast.storage.standing import Standing, standing

T = TypeVar("T")

_BLOCK = 1 << 20
_TRIES = 5  # of what has got another directory under its name while it was looked at
_THREADS = 4  # files side by side, where a file is read by one thread


def is_sealed(store: Store, name: str) -> bool:
    """Tell whether a sharded checkpoint of ours has this name: a directory with a manifest. One request."""
    return store.exists(f"{name}/{form.MANIFEST_FILE}")


def is_sharded(store: Store, name: str) -> bool:
    """Tell whether a sharded checkpoint has this name: a directory of ours, or a plain one. One request."""
    if not store.is_local:
        return stands_sharded(standing(store, name))
    return is_sealed(store, name) or is_plain_directory(store, name)


def stands_sharded(there: Standing) -> bool:
    """Tell whether what stands under a name is a sharded checkpoint: a directory of ours, or a plain one."""
    return there.blob.bundle if there.blob is not None else stands_plain(there)


def stands_plain(there: Standing) -> bool:
    """Tell whether what stands under a name is a directory that plain ``torch.distributed.checkpoint`` has made."""
    return there.blob is None and _are_plain([file.name for file in there.files])


def is_plain_directory(store: Store, name: str) -> bool:
    """Tell whether a directory that plain ``torch.distributed.checkpoint`` has made has this name. One request."""
    if store.is_local and not os.path.isfile(store.path(f"{name}/{form.METADATA_FILE}")):
        return False
    return _are_plain([blob.name for blob in store.files(name)])


def are_of_a_checkpoint(files: list[str]) -> bool:
    """Tell whether files that lie in one folder make a sharded checkpoint, or are to, by their names."""
    return form.MANIFEST_FILE in files or _are_plain(files) or any(map(mark_of, files))


def _are_plain(files: list[str]) -> bool:
    """Tell whether files are those of plain DCP, by their names: with a mark they would be of a save of ours."""
    shards = [file for file in files if file.endswith(form.SHARD_SUFFIX)]
    known = form.METADATA_FILE in files and form.MANIFEST_FILE not in files
    return known and bool(shards) and not any(map(mark_of, files))


def read_manifest(store: Store, name: str) -> Manifest | None:
    """Return the whole manifest of one checkpoint; None if it has none.

    Raises:
        OSError: if it cannot be read.
        DamagedCheckpointError: if it is not as it was written.
        NewerFormatError: if a later holdfast wrote it.

    """
    if not store.is_local:
        return _manifest_there(store, standing(store, name))
    if not is_sharded(store, name):
        return reading.read_manifest(BlobSource(store, name, store.size(name)))
    if is_plain_directory(store, name):
        return None
    return _manifest_in(store, name, store.size(f"{name}/{form.MANIFEST_FILE}"))


def _manifest_there(store: Store, there: Standing) -> Manifest | None:
    blob = there.blob
    if blob is None:
        if stands_plain(there):
            return None
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), store.path(there.name))
    if blob.bundle:
        return _manifest_in(store, blob.name, blob.size)
    return read_end(TailSource(store, blob.name, blob.size, blob.stamp), reading.read_manifest)


def _manifest_in(store: Store, name: str, size: int) -> Manifest:
    with manifest_errors(store.path(name)):
        _check_length(size)
        return form.decode(store.read(f"{name}/{form.MANIFEST_FILE}", 0, size))


def mark_in(manifest: Manifest) -> str:
    """Return the mark that the files of a sharded checkpoint have in their names; "" if they have none."""
    return next((mark for mark in (mark_of(record.name) for record in manifest.records) if mark), "")


def check_names(store: Store, name: str, manifest: Manifest) -> None:
    """See that a copy of a sharded checkpoint cannot write over files of another one that is to be there until then.

    Raises:
        FileExistsError: if it could: the files were saved before each save had names of its own.

    """
    if not store.is_local and not mark_in(manifest) and is_sealed(store, name):
        msg = "its files have the same names, as they all had once, and both cannot be there: remove it first"
        raise FileExistsError(errno.EEXIST, msg, store.path(name))


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
    root, name = split_path(path)
    return bool(name) and is_sharded(open_store(root), name)


def far_blob(path: str | os.PathLike[str]) -> Blob | None:
    """Return what is known of the single file behind a URL, by one request; None for a sharded checkpoint, or nothing.

    None for what is on this machine, without a look.
    """
    root, name = split_path(path)
    store = open_store(root)
    if store.is_local or not name:
        return None
    blob = standing(store, name).blob
    return None if blob is None or blob.bundle else blob


def no_single_file(path: str) -> LoadError:
    """Return the error for what can only be done with a checkpoint that is one file."""
    msg = (
        f"{printable(path)} is a sharded checkpoint, a directory of several files, and this reads single files alone. "
        f"`holdfast export {printable(path)} ONE.ckpt` makes one of it; `holdfast.load` loads it whole"
    )
    return LoadError(msg)


@dataclass(frozen=True)
class Directory:
    """An open directory that holds one checkpoint."""

    folder: Folder

    @property
    def path(self) -> str:
        """Its path or URL, for messages."""
        return self.folder.path

    @contextmanager
    def opened(self, name: str) -> Iterator[FolderSource]:
        """Open one of its files.

        Raises:
            DamagedCheckpointError: if it is not there, or is no file.

        """
        with ExitStack() as held:
            try:
                source = held.enter_context(self.folder.opened(name))
            except FileNotFoundError as error:
                special = error.errno == errno.ENOENT and error.strerror != os.strerror(errno.ENOENT)
                raise self.damaged(
                    name, str(error.strerror) if special and error.strerror else "it is missing"
                ) from error
            except IsADirectoryError as error:
                raise self.damaged(name, "a directory stands where a file was saved") from error
            yield source

    def damaged(self, name: str, problem: str) -> DamagedCheckpointError:
        """Return the error for a file that is not as it was saved."""
        return DamagedCheckpointError(self.path, name, problem)

    def manifest(self) -> Manifest | None:
        """Read the manifest; None if there is none.

        Raises:
            DamagedCheckpointError: if it is not as it was written.
            NewerFormatError: if a later holdfast wrote it.

        """
        if form.MANIFEST_FILE not in self.folder.names():
            return None
        with self.opened(form.MANIFEST_FILE) as source, manifest_errors(self.path):
            _check_length(source.size)
            return form.decode(source.read(0, source.size))


def with_directory(path: str | os.PathLike[str], use: Callable[[Directory], T]) -> T:
    """Use the directory at a path; once more if another one has taken its name meanwhile.

    Raises:
        CheckpointNotFoundError: if there is none.
        DamagedCheckpointError: as ``use`` finds it, of a directory that still has its name.

    """
    for left in range(_TRIES, 0, -1):
        try:
            folder = open_folder(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"there is no sharded checkpoint at {printable(os.fspath(path))}"
            raise CheckpointNotFoundError(msg) from error
        try:
            return use(Directory(folder))
        except (DamagedCheckpointError, OSError):
            if left == 1 or folder.is_still_there():
                raise
        finally:
            folder.close()
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
    plans = [(record, pieces_of(found, record)) for record in manifest.records]
    for record, pieces in plans:
        _check_bytes(found, record, pieces, progress)
    return manifest


def strangers(found: Directory, manifest: Manifest) -> list[str]:
    """Return the names in a directory of what was not saved with its checkpoint, sorted."""
    ours = {record.name for record in manifest.records} | {form.MANIFEST_FILE}
    return sorted(set(found.folder.names()) - ours)


def pieces_of(found: Directory, record: Record) -> list[Piece]:
    """Return what the bytes of a file must be, as it says itself if it is a shard; its size is checked."""
    with found.opened(record.name) as source:
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
    with found.opened(record.name) as source:
        source.pour(pieces.end, pieces.take if progress is None else telling(pieces.take, progress))
        if isinstance(source, BlobSource) and pieces.problem() is not None:  # it may have become so on its way
            pieces = Pieces(plan)
            source.pour(pieces.end, pieces.take)
    check_pieces(found, record, pieces)


def check_pieces(found: Directory, record: Record, pieces: Pieces) -> None:
    """See that the bytes of a file that were taken are as they were saved.

    Raises:
        DamagedCheckpointError: naming the file, and the tensor in it.

    """
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
        names = [name for name in found.folder.names() if _is_file(found, name)]
    else:
        names = [form.MANIFEST_FILE, *(record.name for record in manifest.records)]
    from holdfast.storage.direct_read import in_threads  # noqa: PLC0415 - with ctypes: not for those who only look

    lines: dict[str, str] = {}
    sizes: list[int] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        with found.opened(name) as source:
            digest, size = _digest(source)
        with lock:
            lines[name] = f"{digest} {size} {name}\n"
            sizes.append(size)

    in_threads(work, names, _THREADS)
    listing = "".join(lines[name] for name in sorted(lines))
    return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).digest(), sum(sizes)


def _is_file(found: Directory, name: str) -> bool:
    try:
        with found.opened(name):
            return True
    except DamagedCheckpointError:
        return False


def _digest(source: FolderSource) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    length = FAR_PIECE if isinstance(source, BlobSource) else _BLOCK
    while block := source.read(size, length):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size
