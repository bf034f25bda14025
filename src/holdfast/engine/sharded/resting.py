"""A sharded checkpoint at rest, as its readers see it: what it says of itself, each part checked by the one before."""

from __future__ import annotations

import contextlib
import errno
import os
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

from torch.distributed.checkpoint.metadata import Metadata

from holdfast.engine.sharded import metadata as dcp_metadata
from holdfast.engine.sharded.flattening import KEYS_FILE, Keys
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, NewerFormatError, printable
from holdfast.folders import Folder, FolderSource, open_folder
from holdfast.format import directory
from holdfast.format.digest import crc32
from holdfast.format.manifest import LONGEST
from holdfast.format.shards import NewerShardError, Region, ShardError, read_table
from holdfast.records import Manifest, Record
from holdfast.storage import join_path, open_store, plain_path, split_path

T = TypeVar("T")

_TRIES = 5  # of what has got another checkpoint under its name while it was read


class Resting:
    """A directory with a sharded checkpoint, ours or plain DCP's, by path or URL. Its files are read when asked for.

    They are those of one and the same checkpoint, wherever its name goes.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        """Look whether it is there.

        Raises:
            CheckpointNotFoundError: if it is not, or is no directory of a sharded checkpoint.

        """
        self.path = plain_path(os.fspath(path))
        self.verify = verify
        while True:
            self._folder = _folder(self.path)
            self._close = weakref.finalize(self, self._folder.close)
            if {directory.METADATA_FILE, directory.MANIFEST_FILE}.intersection(self._names()):
                return
            if self.is_still_there():
                msg = f"{self.path} is no sharded checkpoint: it has no {directory.METADATA_FILE}"
                raise CheckpointNotFoundError(msg)
            self._close()

    def is_still_there(self) -> bool:
        """Tell whether its name still leads to it: if not, what is missing may be no damage, but replaced."""
        return self._folder.is_still_there()

    def replaced(self) -> LoadError:
        """Return the error for those who cannot begin again."""
        msg = f"{printable(self.path)} was replaced or removed while it was read: try it again, with what is there now"
        return LoadError(msg)

    @property
    def identity(self) -> int:
        """A number that is another where another checkpoint has the same name."""
        seal = directory.METADATA_FILE if self.manifest is None else directory.MANIFEST_FILE
        return crc32(self._bytes(seal, dcp_metadata.LONGEST))

    def _names(self) -> list[str]:
        try:
            return self._folder.names()
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def file(self, name: str) -> str:
        """Return the path or URL of one of its files."""
        return join_path(self.path, name)

    @cached_property
    def manifest(self) -> Manifest | None:
        """What holdfast says of it; None for what plain DCP has written.

        Raises:
            DamagedCheckpointError, NewerFormatError: if it cannot be read.

        """
        if directory.MANIFEST_FILE not in self._names():
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

    def regions(self, name: str, source: FolderSource) -> dict[int, Region]:
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
    def opened(self, name: str) -> Iterator[FolderSource]:
        """Open one of its files.

        Raises:
            DamagedCheckpointError: if it is not there.
            LoadError: if it is not, because another checkpoint took the name of this one.

        """
        with contextlib.ExitStack() as held:
            try:
                source = held.enter_context(self._folder.opened(name))
            except FileNotFoundError as error:
                if not self.is_still_there():
                    raise self.replaced() from error
                raise DamagedCheckpointError(self.path, f"file {name}", "it is missing") from error
            except OSError as error:
                raise _unreadable(self.file(name), error) from error
            yield source

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
            try:
                return source.read(0, size)
            except OSError as error:
                raise _unreadable(source.path, error) from error


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


def _folder(path: str) -> Folder:
    try:
        return open_folder(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"there is no checkpoint at {path}"
        if _exists(path):
            msg = f"{path} is a file, not the directory of a sharded checkpoint"
        raise CheckpointNotFoundError(msg) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _exists(path: str) -> bool:
    root, name = split_path(path)
    return open_store(root).exists(name)


def _unreadable(path: str, error: OSError) -> LoadError:
    why = os.strerror(error.errno) if error.errno else str(error) or os.strerror(errno.EIO)
    return LoadError(f"{path} cannot be read: {why}")
