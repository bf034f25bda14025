"""Copying one blob: checked while it is read, committed whole, and read back. Imports no torch."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from holdfast.errors import DamagedCheckpointError, LoadError, NewerFormatError, SaveError, printable
from holdfast.format import layout, reading
from holdfast.format.digest import combine, crc32
from holdfast.format.directory import SHARD_SUFFIX
from holdfast.mirroring.reading_ahead import Source, blocks
from holdfast.source import FarSource, FileSource
from holdfast.storage import NO_BLOB, Blob, Store, is_in_doubt, open_regular
from holdfast.storage.partial import put_by_parts

COPIED, SKIPPED, DIFFERENT = "copied", "skipped", "different"

_BLOCK = 1 << 22  # bytes read at a time
_TOKEN = 32  # letters of the name under which an unfinished copy waits

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Place:
    """One blob of a store; ``known`` is what a listing has just said of it, where it has."""

    store: Store
    name: str
    known: Blob | None = None

    @property
    def is_free(self) -> bool:
        """Whether nothing has this name: by the listing, where it says so (``NO_BLOB`` bytes), else by a look."""
        if self.known is not None and self.known.size == NO_BLOB:
            return True
        return not self.store.exists(self.name)

    @property
    def path(self) -> str:
        """Its path or URL."""
        return self.store.path(self.name)


@dataclass(frozen=True)
class Watch:
    """Somebody who knows what the bytes must be.

    Attributes:
        take: called with each piece that passes, and its offset.
        finish: called when all have passed, before anything is committed; raises if they are others.

    """

    take: Callable[[int, memoryview], None]
    finish: Callable[[], None]


def copy_blob(source: Place, goal: Place, *, force: bool, advance: Advance, watch: Watch | None = None) -> str:
    """Copy one blob; return whether it was copied, was there already, or is another one that was left.

    A file with a manifest is checked against it on the way: a damaged one is not copied. What was written is read
    back and compared.

    Raises:
        DamagedCheckpointError: if the source is damaged, or changed while it was read.
        SaveError: if the copy cannot be written, or does not read back as it was written.
        LoadError, OSError: if the source cannot be read.

    """
    try:
        return _copy_blob(source, goal, force=force, advance=advance, watch=watch)
    except DamagedCheckpointError:
        if source.known is None:
            raise
    # It was listed a while ago, and may have been written anew since.
    return _copy_blob(Place(source.store, source.name), goal, force=force, advance=advance, watch=watch)


def _copy_blob(source: Place, goal: Place, *, force: bool, advance: Advance, watch: Watch | None) -> str:
    with _opened(source) as opened:
        size = opened.size
        account = _account(opened)
        with save_errors(goal):
            known = None if goal.is_free else _compare(opened, goal, account, size)
        if known is not None and (known or not force):
            advance(size)
            return SKIPPED if known else DIFFERENT
        flow = _write(opened, goal, account, size, advance, watch)
    with save_errors(goal):
        _read_back(goal, flow.size, flow.crc)
    return COPIED


def _write(  # noqa: PLR0913, PLR0917 - what a flow is made of
    opened: Source, goal: Place, account: reading.Account | None, size: int, advance: Advance, watch: Watch | None
) -> _Flow:
    """Write the bytes; where those of an earlier try prove wrong, all of them once more."""
    while True:
        flow = _Flow(opened, size, account, advance, watch)
        try:
            with save_errors(goal):
                if account is None:
                    goal.store.put(goal.name, flow.rest(0), gate=flow.check)
                else:
                    put_by_parts(goal.store, goal.name, _token(account, goal), flow, flow.check)
        except DamagedCheckpointError:
            if not flow.taken_up:
                raise
        else:
            return flow


@dataclass
class _Flow:
    """The bytes of a source on their way, checked as they pass."""

    source: Source
    size: int
    account: reading.Account | None
    advance: Advance
    watch: Watch | None = None
    crc: int = 0
    passed: int = 0
    taken_up: int = 0
    inspection: reading.Inspection | None = field(init=False)

    def __post_init__(self) -> None:
        account = self.account
        self.inspection = None if account is None else reading.Inspection(self.source.path, account)

    def earlier(self, offset: int, data: bytes) -> None:
        """Check bytes of an earlier try."""
        self.taken_up += len(data)
        self._take(offset, data)

    def rest(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from an offset on."""
        ahead = blocks(self.source, offset, self.size)
        while True:
            with _load_errors(self.source):
                data = next(ahead, None)
            if data is None:
                return
            self._take(offset, data)
            yield data
            offset += len(data)

    def _take(self, offset: int, data: bytes) -> None:
        self.crc = crc32(data, self.crc)
        self.passed += len(data)
        if self.inspection is not None and self.account is not None and offset < self.account.end:
            self.inspection.take(offset, memoryview(data)[: self.account.end - offset])
        if self.watch is not None:
            self.watch.take(offset, memoryview(data))
        self.advance(len(data))

    def check(self) -> None:
        """Say whether all bytes have passed, and are what the manifest says.

        Raises:
            DamagedCheckpointError: if not.

        """
        if self.passed != self.size:
            problem = f"it ended after {self.passed} of {self.size} bytes: it was written to while it was read"
            raise DamagedCheckpointError(self.source.path, "the file", problem)
        if self.inspection is not None:
            self.inspection.finish()
        if self.watch is not None:
            self.watch.finish()


def _token(account: reading.Account, goal: Place) -> str:
    """Return a name for these bytes on their way to this place: the directory has the digests of all of them."""
    directory = layout.central_directory(account.placed)
    return hashlib.sha256(directory + goal.name.encode("utf-8", "surrogateescape")).hexdigest()[:_TOKEN]


def _account(source: Source) -> reading.Account | None:
    """Return what a file says of itself; None of one that says nothing that is known here, and of a shard.

    Raises:
        DamagedCheckpointError: if it is a checkpoint that is cut off or overwritten.

    """
    try:
        return reading.read_account(source) if source.size and not source.path.endswith(SHARD_SUFFIX) else None
    except NewerFormatError:
        return None


def _compare(source: Source, goal: Place, account: reading.Account | None, size: int) -> bool | None:
    """Tell whether a blob that is there is the same, byte by byte; None if it is the same gone bad."""
    with _opened(goal) as other:
        if other.size != size:
            return False
        if account is None:
            with _load_errors(source):
                own = _digest(source)
            return own == _digest(other)
        directory = layout.central_directory(account.placed)
        if other.read(account.end, len(directory)) != directory:
            return False
        inspection = reading.Inspection(other.path, account)
        _pour(other, account.end, inspection.take)
        try:
            inspection.finish()
        except DamagedCheckpointError:
            return None
    return True


def _read_back(goal: Place, size: int, crc: int) -> None:
    """Read what was written, and remove it if it is not what was meant.

    Raises:
        SaveError: if so.

    """
    with _opened(Place(goal.store, goal.name, Blob(goal.name, size))) as made:
        if made.size == size and _digest(made) == crc:
            return
    goal.store.remove(goal.name)
    msg = (
        f"the copy {printable(goal.path)} did not read back as it was written, and was removed: something between "
        "here and its disk is faulty. The source is as it was"
    )
    raise SaveError(msg, path=goal.path, errno=errno.EIO)


def _digest(source: Source) -> int:
    """Return the CRC-32 of all bytes."""
    parts: dict[int, tuple[int, int]] = {}
    lock = threading.Lock()

    def take(offset: int, data: memoryview) -> None:
        part = (crc32(data), len(data))
        with lock:
            parts[offset] = part

    _pour(source, source.size, take)
    crc = 0
    for offset in sorted(parts):
        crc = combine(crc, *parts[offset])
    return crc


def _pour(source: Source, end: int, take: Callable[[int, memoryview], None]) -> None:
    if isinstance(source, FileSource):
        source.pour(end, take)
        return
    offset = 0
    while offset < end:
        data = source.read(offset, min(_BLOCK, end - offset))
        if not data:
            return
        take(offset, memoryview(data))
        offset += len(data)


@contextmanager
def _opened(place: Place) -> Iterator[Source]:
    """Open a blob: of a file all reads are then of the same one, whatever its name comes to mean."""
    if not place.store.is_local:
        size = place.store.size(place.name) if place.known is None else place.known.size
        yield FarSource(place.store, place.name, size)
        return
    with open_regular(place.path) as file:
        yield FileSource(place.path, file)


@contextmanager
def _load_errors(source: Source) -> Iterator[None]:
    """Tell what goes wrong at the source from what goes wrong at the target."""
    try:
        yield
    except OSError as error:
        msg = f"{printable(source.path)} cannot be read: {error.strerror or error}"
        raise LoadError(msg) from error


@contextmanager
def save_errors(goal: Place) -> Iterator[None]:
    """Turn what goes wrong at the target into a ``SaveError`` that names it."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        left = "It is there whole, or not at all: a server that did not answer may have taken it"
        left = left if is_in_doubt(error) else "Nothing that was there has changed"
        msg = f"{printable(goal.path)} was not written: {error.strerror or error}. {left}"
        raise SaveError(msg, path=goal.path, errno=error.errno) from error
