"""One blob on its way from a store to another: in parts that a later try goes on with, checked, and then committed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.errors import DamagedCheckpointError
from holdfast.mirroring.passing import Passing
from holdfast.mirroring.tickets import Begun, Tickets
from holdfast.storage import Store
from holdfast.storage.partial import put_by_parts

if TYPE_CHECKING:  # with fsspec: not for two directories
    from holdfast.storage.remote.pace import Pace
    from holdfast.storage.remote.uploading import Ticket

Progress = Callable[[int], None]

_TOKEN = 32  # letters of the name under which an unfinished copy waits in a directory
_SLICE = 1 << 18  # bytes that are waited for at a time, so that the wait can be ended


@dataclass(frozen=True)
class Way:
    """How bytes are sent.

    Attributes:
        target: where to.
        pace: bytes per second, for all that are sent; None for as fast as it goes.
        workers: parts that are under way at a time, and in memory.
        tickets: where unfinished uploads are noted; None for nowhere: they are aborted when they fail.
        progress: called with how many more bytes are there.
        stop: ends what is under way when it is set.

    """

    target: Store
    pace: Pace | None = None
    workers: int = 4
    tickets: Tickets | None = None
    progress: Progress = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def notes(self) -> Tickets | None:
        """Where unfinished uploads are noted, if that is ours at the moment."""
        return self.tickets if self.tickets is not None and self.tickets.own() else None


def way_to(  # noqa: PLR0913 - how it goes
    target: Store,
    source: Store,
    *,
    bandwidth: float | None = None,
    workers: int = 4,
    progress: Progress = lambda _: None,
    stop: threading.Event | None = None,
) -> Way:
    """Return the way from one store to another; what is sent from a directory to a server is noted in the directory."""
    pace = None
    if bandwidth is not None:
        from holdfast.storage.remote.pace import Pace  # noqa: PLC0415 - with fsspec: not for two directories

        pace = Pace(bandwidth)
    tickets = Tickets(source, target.root) if source.is_local and takes_parts(target) else None
    return Way(target, pace, workers, tickets, progress, stop or threading.Event())


def takes_parts(target: Store) -> bool:
    """Tell whether it takes a blob in parts, in any order, which a later process goes on with; else it has ``put``.

    So do servers. A directory does not, nor do stores that others have written: ``Store`` does not promise it.
    """
    return hasattr(target, "put_from")


@dataclass(frozen=True)
class Parcel:
    """A blob that is to be sent.

    Attributes:
        name: at the target.
        passing: its bytes.
        print: what identifies them; "" for what is not worth a note of where it stopped.
        still: whether the source has it still: what is gone meanwhile is not committed.
        gate: asked when all bytes are there and found right, before they are committed; may raise.

    """

    name: str
    passing: Passing
    print: str = ""
    still: Callable[[], bool] = lambda: True
    gate: Callable[[], None] = lambda: None

    def check_still(self) -> None:
        """Raise ``FileNotFoundError`` if the source has it no more."""
        if not self.still():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.passing.path)

    def check(self) -> None:
        """See that all bytes are right, and that they may be committed."""
        self.check_still()
        self.passing.finish()
        self.gate()


class _OtherPartsError(Exception):
    """What an earlier try has sent is not what the file holds."""


def send(way: Way, parcel: Parcel) -> None:
    """Commit a blob at the target: whole, and as its check says, or not at all.

    Raises:
        DamagedCheckpointError: if the source is not as it was saved. What the target had is untouched.
        FileNotFoundError: if the source has it no more.
        InterruptedError: if it was stopped; a later try goes on with what is there.
        OSError: if the source cannot be read, or the target cannot be written; likewise.

    """
    if not takes_parts(way.target):
        _write(way, parcel)
        return
    try:
        _upload(way, parcel)
    except _OtherPartsError:
        abandon_named(way, parcel.name)
        _upload(way, parcel)


def abandon(way: Way, begun: Begun) -> None:
    """Give an upload up that nobody will go on with: its parts go, and the note of it.

    Raises:
        OSError: if the server does not do it; then the note stays.

    """
    target: Any = way.target
    if begun.upload:
        target.objects.abort(f"{target.base}/{begun.name}", begun.upload)
    if way.notes is not None:
        way.notes.drop(begun.name)


def spare(uploads: Collection[str]) -> None:
    """Have the sweeps of this process leave uploads that somebody goes on with."""
    from holdfast.storage.remote.dead_uploads import keep_uploads  # noqa: PLC0415 - with fsspec: not for two directories

    keep_uploads(uploads)


def abandon_named(way: Way, name: str) -> None:
    """Give up whatever upload of a blob was begun."""
    notes = way.notes
    begun = notes.find(name) if notes is not None else None
    if begun is not None:
        abandon(way, begun)


def _upload(way: Way, parcel: Parcel) -> None:
    """Send it in parts; of those that the server has already each is compared with the file, and not sent again."""
    from holdfast.storage.remote.uploading import Ticket  # noqa: PLC0415 - with fsspec: not for two directories

    target: Any = way.target
    begun = _begun(way, parcel)
    ticket = None if begun is None else Ticket(begun.upload, begun.part_size, dict(begun.etags))

    def check() -> None:
        if begun is not None:
            _compare(parcel.passing, begun)
        parcel.check()

    try:
        target.put_from(
            parcel.name,
            parcel.passing,
            ticket=ticket,
            keep=_keeper(way, parcel, begun),
            pace=way.pace,
            workers=way.workers,
            progress=way.progress,
            gate=check,
            stop=way.stop,
        )
    except (DamagedCheckpointError, FileNotFoundError):
        with contextlib.suppress(OSError):  # the first error is the one to tell; the next start sees to the note
            abandon_named(way, parcel.name)
        raise
    if way.notes is not None:
        way.notes.drop(parcel.name)


def _begun(way: Way, parcel: Parcel) -> Begun | None:
    """Return the upload of these very bytes that was begun; one of other bytes under this name is given up."""
    notes = way.notes if parcel.print else None
    begun = notes.find(parcel.name) if notes is not None else None
    if begun is None or begun.whole:  # what was whole is so no more, or it would not be sent
        return None
    if (begun.print, begun.size) == (parcel.print, parcel.passing.size):
        return begun
    abandon(way, begun)
    return None


def _keeper(way: Way, parcel: Parcel, begun: Begun | None) -> Callable[[Ticket], None] | None:
    """Return what takes note of each part; None where nothing is noted, so that what fails is aborted."""
    tickets = way.notes if parcel.print else None
    if tickets is None:
        return None
    known = begun.crcs if begun is not None else {}

    def keep(ticket: Ticket) -> None:
        spare([ticket.upload])
        crcs = {number: parcel.passing.crc_of((number - 1) * ticket.part_size) for number in ticket.etags}
        said = {number: known.get(number) if crc is None else crc for number, crc in crcs.items()}
        noted = {number: crc for number, crc in said.items() if crc is not None}
        etags = {number: ticket.etags[number] for number in noted}
        size = parcel.passing.size
        tickets.keep(Begun(parcel.name, parcel.print, size, ticket.upload, ticket.part_size, etags, noted))
        parcel.check_still()  # not before: what is not noted could not be given up

    return keep


def _compare(passing: Passing, begun: Begun) -> None:
    """See that the parts which an earlier try has sent are those of the file as it is."""
    for number, crc in begun.crcs.items():
        offset = (number - 1) * begun.part_size
        if passing.crc_of(offset) is None:
            passing.view(offset, begun.part_size)
        if passing.crc_of(offset) != crc:
            raise _OtherPartsError


def _write(way: Way, parcel: Parcel) -> None:
    """Put it whole; what an earlier try has written into a directory is taken up, unless it proves wrong."""
    said = f"{parcel.print} {parcel.name}".encode("utf-8", "surrogateescape")
    token = hashlib.sha256(said).hexdigest()[:_TOKEN]
    feed = _Feed(way, parcel)
    try:
        put_by_parts(way.target, parcel.name, token, feed, parcel.check)
    except DamagedCheckpointError:
        if not feed.taken_up:
            raise
        parcel.passing.restart()
        put_by_parts(way.target, parcel.name, token, _Feed(way, parcel), parcel.check)


@dataclass
class _Feed:
    """The bytes on their way to where they are put whole."""

    way: Way
    parcel: Parcel
    taken_up: int = 0

    @property
    def size(self) -> int:
        return self.parcel.passing.size

    def earlier(self, offset: int, data: bytes) -> None:
        self.taken_up += len(data)
        self.parcel.passing.earlier(offset, data)
        self.way.progress(len(data))

    def rest(self, offset: int) -> Iterator[memoryview]:
        for block in self.parcel.passing.blocks(offset):
            for at in range(0, len(block), _SLICE):
                if self.way.stop.is_set():
                    raise InterruptedError(errno.EINTR, "it was stopped")
                if self.way.pace is not None:
                    self.way.pace.spend(min(_SLICE, len(block) - at))
            yield block
            self.way.progress(len(block))
