"""Sending an object: one request if it is small, else parts that are sent side by side, then made one in one step.

Until then there is no such object, whatever happens; the gate of the one who commits is asked just before that step.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from typing_extensions import Self, TypedDict

from holdfast.storage import hurry
from holdfast.storage.remote.anew import ForgottenError, Held, once_more
from holdfast.storage.remote.bodies import FileBytes, MemorySource, Source
from holdfast.storage.remote.made_before import LostAnswerError, made_of
from holdfast.storage.remote.objects import Bytes, Head, Objects, PartRules
from holdfast.storage.remote.pace import Pace, Path
from holdfast.storage.remote.parts import PART, Sizes, cut
from holdfast.threads import Threads, Work

__all__ = ["PART", "FileBytes", "MemorySource", "Pace", "Sending", "Source", "Ticket", "upload", "upload_chunks"]

log = logging.getLogger("holdfast")

_SPARE = 2  # parts with memory of their own that are held until the end
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass
class Ticket:
    """What another process needs to go on with an upload.

    Attributes:
        upload: its id; "" of one that is to be begun.
        part_size: bytes of each part but the last.
        etags: those of the parts that the server has, by their numbers from 1.

    """

    upload: str
    part_size: int
    etags: dict[int, str] = field(default_factory=dict)


class Sending(TypedDict, total=False):
    """The keywords of ``upload``."""

    ticket: Ticket | None
    keep: Callable[[Ticket], None] | None
    pace: Pace | None
    workers: int
    progress: Callable[[int], None] | None
    gate: Callable[[], None] | None
    absent: bool
    stop: threading.Event | None
    again: Callable[[], None] | None


def upload(  # noqa: PLR0913 - what may be asked of an upload
    objects: Objects,
    key: str,
    source: Source,
    *,
    ticket: Ticket | None = None,
    keep: Callable[[Ticket], None] | None = None,
    pace: Pace | None = None,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
    gate: Callable[[], None] | None = None,
    absent: bool = False,
    stop: threading.Event | None = None,
    again: Callable[[], None] | None = None,
) -> Head:
    """Make an object of a source, or replace it, in one step. What the server forgets midway is begun anew, once.

    At most ``workers`` parts are in memory, if the source is not in memory anyway.

    Args:
        objects: the store.
        key: of the object.
        source: its bytes.
        ticket: of an upload of the same bytes that was begun: parts that the server still has are not sent again. One
            that the server does not know begins anew.
        keep: called with the ticket after the upload has begun and after each part that the server has, from any
            thread, one call at a time. Where it is given, an error leaves the upload as it is; else it is aborted. A
            small object, and one on a server that takes no parts, has no ticket.
        pace: bytes per second.
        workers: how many parts are sent at a time.
        progress: called with how many more bytes are on the server, from any thread, one call at a time.
        gate: called when all bytes are there, before they become the object; if it raises, they do not.
        absent: only if there is no such object, where the server keeps such conditions.
        stop: ends the upload when it is set, before the next part.
        again: called before a forgotten upload is begun anew; if it raises, it is not.

    Raises:
        ForgottenError: if the server has forgotten the upload twice.
        InterruptedError: if it was stopped.
        OSError: the first that went wrong.

    """
    path = Path(pace, stop, progress)
    if source.size <= max(PART, objects.parts.least if objects.parts else 0):
        data = source.view(0, source.size)
        path.wait(len(data))
        _open(gate)
        head = objects.put(key, data, absent=absent)
        path.arrived(len(data))
        return _checked(key, head, source.size)
    if objects.parts is None:
        return _checked(key, objects.put(key, _blocks(source, path, gate), absent=absent), source.size)
    trial = ticket

    def send() -> Head:
        nonlocal trial
        now, begun = _begun(objects, key, source, trial)
        trial = replace(now, upload="", etags={})  # the next one is another upload, of equal parts
        if begun and keep is not None:
            keep(replace(now, etags={}))
        path.begin(sum(_length(source, now, number) for number in now.etags))
        with _Sender(objects, key, now, path, workers=workers, keep=keep) as sender:
            for number in range(1, _count(source, now) + 1):
                if number not in now.etags:
                    sender.send(number, _length(source, now, number), partial(_part, source, now, number))
            sender.wait()
            _open(gate)
            return _checked(key, sender.complete(absent=absent), source.size)

    return once_more(send, again, absent=absent)


def upload_chunks(  # noqa: PLR0913 - what a store is asked for, and how
    objects: Objects,
    key: str,
    chunks: Iterable[Bytes],
    *,
    size: int = 0,
    workers: int = 4,
    gate: Callable[[], None] | None = None,
    absent: bool = False,
    again: Callable[[], None] | None = None,
) -> Head:
    """Make an object of chunks that come one after the other, or replace it, in one step.

    A chunk of memory that is as large as a part is sent from where it lies, and so are those that lie side by side:
    they have to stay as they are until this returns. All else is copied, ``workers`` parts of it at a time. What the
    server forgets midway is begun anew, once, where the chunks lie in an image or are few.

    Args:
        objects: the store.
        key: of the object.
        chunks: its bytes.
        size: how many there will be, about; 0 where that is not known. With it all parts are equally large.
        workers: how many parts are sent at a time.
        gate: called when all bytes are there, before they become the object; if it raises, they do not.
        absent: only if there is no such object, where the server keeps such conditions.
        again: called before a forgotten upload is begun anew; if it raises, it is not.

    Raises:
        ForgottenError: if the server has forgotten the upload twice, or once and the chunks are gone.
        OSError: the first that went wrong; the upload is aborted, then as after anything else that is raised.

    """
    path, counted = Path(), _Counted(chunks)
    sizes = Sizes.of(objects.parts or PartRules(), size)
    parts = cut(counted, sizes)
    first, alone = next(parts)
    if alone:
        _open(gate)
        return _checked(key, objects.put(key, first, absent=absent), counted.size)
    if objects.parts is None:
        pieces = itertools.chain([first], (data for data, _ in parts))
        return _checked(key, objects.put(key, _then(pieces, gate), absent=absent), counted.size)
    held = Held(itertools.chain([first], (data for data, _ in parts)), _SPARE * PART)
    del first

    def send() -> Head:
        ticket = Ticket(objects.begin(key), sizes.first)
        with _Sender(objects, key, ticket, path, workers=workers) as sender:
            for number, data in enumerate(held, 1):
                sender.send(number, len(data), partial(_same, data))
            sender.wait()
            _open(gate)
            return _checked(key, sender.complete(absent=absent), counted.size)

    return once_more(send, again, absent=absent)


class _Sender:
    """Sends the parts of an upload that was begun, some at a time. Leaving it waits for those under way.

    After an error the rest is not sent, and the upload is aborted unless somebody keeps it.
    """

    def __init__(  # noqa: PLR0913 - an upload, and how to go about it
        self,
        objects: Objects,
        key: str,
        ticket: Ticket,
        path: Path,
        *,
        workers: int,
        keep: Callable[[Ticket], None] | None = None,
    ) -> None:
        self._objects, self._key, self._ticket, self._path, self._keep = objects, key, ticket, path, keep
        self._workers = max(1, workers)
        self._threads = Threads(self._workers, "holdfast-upload")
        self._under_way: deque[Work] = deque()
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self._first: BaseException | None = None
        self._heeded = (self._failed, *hurry.heeded())
        self._sizes = dict.fromkeys(ticket.etags, ticket.part_size)  # of parts that are there; the last may be smaller

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._failed.set()
        self._threads.stop()
        if error is not None and self._keep is None:
            with contextlib.suppress(Exception):  # the first error is the one to tell; what is left a sweep removes
                self._objects.abort(self._key, self._ticket.upload)

    def send(self, number: int, size: int, data: Callable[[], Bytes]) -> None:
        """Have a part sent; wait while enough of them are under way."""
        self._sizes[number] = size
        while len(self._under_way) > self._workers:
            self._under_way.popleft().join()
            self._raise()
        self._under_way.append(self._threads.run(partial(self._send, number, size, data)))

    def wait(self) -> None:
        """Wait until the server has all parts."""
        while self._under_way:
            self._under_way.popleft().join()
        self._raise()

    def complete(self, *, absent: bool) -> Head:
        """Make the object of the parts. If the answer is lost, see whether it was made."""
        etags = [etag for _, etag in sorted(self._ticket.etags.items())]
        try:
            return self._objects.complete(self._key, self._ticket.upload, etags, absent=absent)
        except FileNotFoundError as error:
            raise ForgottenError.of(self._key, error) from error
        except LostAnswerError:
            head = made_of(self._objects, self._key, self._ticket.etags, self._sizes)
            if head is None:
                raise
            return head

    def _raise(self) -> None:
        if self._first is not None:
            raise self._first

    def _send(self, number: int, size: int, data: Callable[[], Bytes]) -> None:
        if self._failed.is_set():
            return
        try:
            self._path.wait(size)
            etag = self._part(number, data)
            with self._lock:
                self._ticket.etags[number] = etag
                if self._keep is not None:
                    self._keep(replace(self._ticket, etags=dict(self._ticket.etags)))
            self._path.arrived(size)
        except BaseException as error:  # noqa: BLE001 - raised by the one who waits
            with self._lock:
                self._first = self._first or error
            self._failed.set()

    def _part(self, number: int, data: Callable[[], Bytes]) -> str:
        with hurry.until(*self._heeded):
            piece = data()
            try:
                return self._objects.part(self._key, self._ticket.upload, number, piece)
            except FileNotFoundError as error:
                raise ForgottenError.of(self._key, error) from error


def _begun(objects: Objects, key: str, source: Source, ticket: Ticket | None) -> tuple[Ticket, bool]:
    """Return the ticket of an upload that the server knows, with the parts that it has; and whether it is a new one."""
    if ticket is not None and ticket.upload:
        try:
            there = objects.parts_of(key, ticket.upload)
        except FileNotFoundError:
            log.debug("the server knows nothing of the upload of %s that was begun: it is begun anew", key)
        else:
            has = {
                number: part.etag
                for number, part in there.items()
                if part.size == _length(source, ticket, number)
                and (ticket.etags.get(number) == part.etag or _has(part.etag, source, ticket, number))
            }
            return Ticket(ticket.upload, ticket.part_size, has), False
    assert objects.parts is not None  # noqa: S101 - the caller has asked
    size = ticket.part_size if ticket and not ticket.upload else Sizes.of(objects.parts, source.size).first
    return Ticket(objects.begin(key), size), True


def _has(etag: str, source: Source, ticket: Ticket, number: int) -> bool:
    """Tell whether a part of which nobody took note is the source's: it came just before the one who sent it died."""
    if number in ticket.etags or not _MD5.fullmatch(etag):
        return False
    return hashlib.md5(_part(source, ticket, number), usedforsecurity=False).hexdigest() == etag


def _count(source: Source, ticket: Ticket) -> int:
    return -(-source.size // ticket.part_size)


def _length(source: Source, ticket: Ticket, number: int) -> int:
    return max(0, min(ticket.part_size, source.size - (number - 1) * ticket.part_size))


def _part(source: Source, ticket: Ticket, number: int) -> memoryview:
    return source.view((number - 1) * ticket.part_size, _length(source, ticket, number))


def _same(data: Bytes) -> Bytes:
    return data


def _blocks(source: Source, path: Path, gate: Callable[[], None] | None) -> Iterator[Bytes]:
    """Yield a source's bytes one part after the other; behind the last one open the gate."""
    for offset in range(0, source.size, PART):
        view = source.view(offset, PART)
        path.wait(len(view))
        yield bytes(view)  # whoever gets it may keep it, and a file's view is good for a moment only
        path.arrived(len(view))
    _open(gate)


def _then(chunks: Iterable[Bytes], gate: Callable[[], None] | None) -> Iterator[Bytes]:
    """Yield the chunks; behind the last one, before they become an object, open the gate."""
    yield from chunks
    _open(gate)


def _open(gate: Callable[[], None] | None) -> None:
    if gate is not None:
        gate()


class _Counted:
    """Chunks, and how many bytes of them have come."""

    def __init__(self, chunks: Iterable[Bytes]) -> None:
        self._chunks = chunks
        self.size = 0

    def __iter__(self) -> Iterator[Bytes]:
        for chunk in self._chunks:
            self.size += memoryview(chunk).nbytes
            yield chunk


def _checked(key: str, head: Head, size: int) -> Head:
    if head.size != size:
        msg = f"sent {size} bytes but {key} has {head.size}"
        raise OSError(msg)
    return head
