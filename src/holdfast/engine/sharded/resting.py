"""A sharded checkpoint at rest, as its readers see it: what it says of itself, each part checked by the one before."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import BinaryIO, TypeVar

from torch.distributed.checkpoint.metadata import Metadata

from holdfast.engine.sharded import metadata as dcp_metadata
from holdfast.engine.sharded.flattening import KEYS_FILE, Keys
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, NewerFormatError, printable
from holdfast.format import directory
from holdfast.format.digest import crc32
from holdfast.format.manifest import LONGEST
from holdfast.format.shards import NewerShardError, Region, ShardError, read_table
from holdfast.records import Manifest, Record
from holdfast.source import FileSource
from holdfast.storage import open_regular, plain_path

T = TypeVar("T")

_TRIES = 5  # of what has got another checkpoint under its name while it was read


class Resting:
    """A directory with a sharded checkpoint, ours or plain DCP's. Its files are read when they are asked for.

    It is held open: they are those of one and the same checkpoint, wherever its name goes.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        """Look whether it is there.

        Raises:
            CheckpointNotFoundError: if it is not, or is no directory of a sharded checkpoint.

        """
        self.path = plain_path(os.fspath(path))
        self.verify = verify
        while True:
            self._descriptor = _folder(self.path)
            self._close = weakref.finalize(self, os.close, self._descriptor)
            if any(self._has(name) for name in (directory.METADATA_FILE, directory.MANIFEST_FILE)):
                return
            if self.is_still_there():
                msg = f"{self.path} is no sharded checkpoint: it has no {directory.METADATA_FILE}"
                raise CheckpointNotFoundError(msg)
            self._close()

    def is_still_there(self) -> bool:
        """Tell whether its name still leads to it: if not, what is missing may be no damage, but replaced."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            return False

    def replaced(self) -> LoadError:
        """Return the error for those who cannot begin again."""
        msg = f"{printable(self.path)} was replaced or removed while it was read: try it again, with what is there now"
        return LoadError(msg)

    @property
    def identity(self) -> int:
        """A number that is another where another checkpoint has the same name."""
        seal = directory.METADATA_FILE if self.manifest is None else directory.MANIFEST_FILE
        return crc32(self._bytes(seal, dcp_metadata.LONGEST))

    def _has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return True

    def file(self, name: str) -> str:
        """Return the path of one of its files."""
        return os.path.join(self.path, name)

    @cached_property
    def manifest(self) -> Manifest | None:
        """What holdfast says of it; None for what plain DCP has written.

        Raises:
            DamagedCheckpointError, NewerFormatError: if it cannot be read.

        """
        if not self._has(directory.MANIFEST_FILE):
            return None
        try:
            return directory.decode(self._bytes(directory.MANIFEST_FILE, LONGEST))
        except directory.NewerManifestError as error:
            raise NewerFormatError(self.path, str(error)) from error
        except directory.ManifestError as error:
            raise DamagedCheckpointError(self.file(directory.MANIFEST_FILE), "the manifest", str(error)) from error

    @cached_property
    def metadata(self) -> Metadata:
        """DCP's account of what lies where.

        Raises:
            DamagedCheckpointError, UnsafeCheckpointError: if it is not as it was written, or not to be trusted.

        """
        data = self._checked(directory.METADATA_FILE, dcp_metadata.LONGEST)
        return dcp_metadata.decode(data, self.file(directory.METADATA_FILE))

    @cached_property
    def keys(self) -> Keys:
        """What DCP's flat names do not tell of the nested state."""
        if self.manifest is None or self._record(KEYS_FILE) is None:
            return Keys()
        data = self._checked(KEYS_FILE, LONGEST)
        try:
            return Keys.decode(data)
        except (ValueError, RecursionError) as error:
            raise DamagedCheckpointError(self.file(KEYS_FILE), "the file", f"{error}"[:200]) from error

    def regions(self, name: str, source: FileSource) -> dict[int, Region]:
        """Return the regions of one of its open files, by where they begin; none for what plain DCP has written.

        Raises:
            DamagedCheckpointError, NewerFormatError: if its table is not as it was written.

        """
        record = self._record(name)
        path = self.file(name)
        if self.manifest is None:
            return {}
        if record is None:
            raise DamagedCheckpointError(self.path, f"file {name}", "its manifest does not know the file")
        if self.verify and source.size != record.size:
            raise DamagedCheckpointError(path, "the file", f"it has {source.size} bytes instead of {record.size}")
        try:
            table = read_table(source)
        except NewerShardError as error:
            raise NewerFormatError(path, str(error)) from error
        except ShardError as error:
            raise DamagedCheckpointError(path, "the table", str(error)) from error
        if table is None or (self.verify and table.crc32 != record.crc32):
            raise DamagedCheckpointError(path, "the table", "it is not the one that the manifest tells of")
        return {region.offset: region for region in table.regions if region.name}

    def check_files(self) -> None:
        """See that every file that the manifest names is there, with its size, whether it will be read or not.

        Raises:
            DamagedCheckpointError: naming the first that is not.

        """
        for record in () if self.manifest is None or not self.verify else self.manifest.records:
            with self.opened(record.name) as source:
                if source.size != record.size:
                    problem = f"it has {source.size} bytes instead of {record.size}"
                    raise DamagedCheckpointError(source.path, "the file", problem)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[FileSource]:
        """Open one of its files.

        Raises:
            DamagedCheckpointError: if it is not there.
            LoadError: if it is not, because another checkpoint took the name of this one.

        """
        try:
            file = open_regular(name, self._descriptor)
        except FileNotFoundError as error:
            if not self.is_still_there():
                raise self.replaced() from error
            raise DamagedCheckpointError(self.path, f"file {name}", "it is missing") from error
        except OSError as error:
            raise _unreadable(self.file(name), error) from error
        with file:
            yield FileSource(self.file(name), file)

    def _record(self, name: str) -> Record | None:
        records = () if self.manifest is None else self.manifest.records
        return next((record for record in records if record.name == name), None)

    def _checked(self, name: str, longest: int) -> bytes:
        data = self._bytes(name, longest)
        if self.manifest is None or not self.verify:
            return data
        record = self._record(name)
        if record is None:
            raise DamagedCheckpointError(self.path, f"file {name}", "its manifest does not know the file")
        if len(data) != record.size:
            raise DamagedCheckpointError(
                self.file(name), "the file", f"it has {len(data)} bytes instead of {record.size}"
            )
        if crc32(data) != record.crc32:
            raise DamagedCheckpointError(self.file(name), "the file", "its CRC-32 does not match")
        return data

    def _bytes(self, name: str, longest: int) -> bytes:
        with self.opened(name) as source:
            size = source.size
            if size > longest:
                problem = f"it has {size} bytes, of which at most {longest} are read"
                raise DamagedCheckpointError(source.path, "the file", problem)
            return _read(source.file, source.path)


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Return DCP's metadata of a directory, ours or plain DCP's, without running what is in them.

    Raises:
        CheckpointNotFoundError: if there is no sharded checkpoint.
        DamagedCheckpointError: if they are not as they were written.
        UnsafeCheckpointError: if they need any class that metadata do not consist of.

    """
    return at_rest(path, lambda resting: resting.metadata)


def at_rest(path: str | os.PathLike[str], use: Callable[[Resting], T], *, verify: bool = True) -> T:
    """Use the checkpoint at a path; once more if another one has taken its name meanwhile, and its files are gone.

    Raises:
        CheckpointNotFoundError: if there is none.
        Exception: as ``use`` raises it, of a checkpoint that still has its name.

    """
    for left in range(_TRIES, 0, -1):
        resting = Resting(path, verify=verify)
        try:
            return use(resting)
        except LoadError:
            if left == 1 or resting.is_still_there():
                raise
    raise AssertionError("the last try returns or raises")


def _folder(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"there is no checkpoint at {path}"
        if os.path.lexists(path):
            msg = f"{path} is a file, not the directory of a sharded checkpoint"
        raise CheckpointNotFoundError(msg) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(file: BinaryIO, path: str) -> bytes:
    try:
        return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> LoadError:
    return LoadError(f"{path} cannot be read: {os.strerror(error.errno or errno.EIO)}")
