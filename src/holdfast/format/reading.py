"""Reading a checkpoint file's own account of itself, and checking every byte of it."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

from holdfast.errors import DamagedCheckpointError, NewerFormatError, printable
from holdfast.format import layout
from holdfast.format.digest import combine, crc32
from holdfast.format.manifest import (
    LONGEST,
    MANIFEST_NAME,
    ManifestError,
    NewerManifestError,
    decode,
    decode_facts,
)
from holdfast.records import Facts, Manifest, Record

_FACTS_GUESS = 1 << 13  # bytes in which the first line of most manifests fits
_DIRECTORY = "central directory"
_TAIL = 1 << 16
_PART = 1 << 20  # bytes read at a time of a record that is checked by itself


class Source(Protocol):
    """The bytes of one file."""

    @property
    def path(self) -> str:
        """How the file is named in messages."""
        ...

    @property
    def size(self) -> int:
        """The bytes it has."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return these bytes; fewer only where the file ends."""
        ...


class WholeSource(Source, Protocol):
    """A source all of whose bytes can be had in turn."""

    def pour(self, end: int, take: Callable[[int, memoryview], None]) -> None:
        """Hand over every byte before ``end``, each piece with its offset, in any order, from any thread.

        ``take`` may not keep what it is given: the memory is used again.
        """
        ...

    def pour_again(self, begin: int, end: int, take: Callable[[int, memoryview], None]) -> bool:
        """Hand over a range once more where it may come otherwise now: over a network. Return whether it was."""
        ...


@dataclass(frozen=True)
class _Located:
    data_offset: int
    size: int


def looks_like_zip(source: Source) -> bool:
    """Tell whether the file begins or ends like the zip that torch writes."""
    tail = source.read(max(0, source.size - layout.END_SIZE), layout.END_SIZE)
    return source.read(0, 4) == b"PK\x03\x04" or tail[-22:-18] == b"PK\x05\x06"


def read_facts(source: Source) -> Facts | None:
    """Read the first line of the manifest and no more; None if the file has no manifest.

    Raises:
        DamagedCheckpointError: if it is a zip whose directory or manifest cannot be read.
        NewerFormatError: if a later holdfast wrote it.

    """
    located = _find_manifest(source)
    if located is None:
        return None
    try:
        length = min(_FACTS_GUESS, located.size)
        while True:
            data = source.read(located.data_offset, length)
            if b"\n" in data or length >= located.size:
                return decode_facts(data)
            length = min(length * 8, located.size)
    except ManifestError as error:
        raise _refusal(source, error) from error


def read_manifest(source: Source) -> Manifest | None:
    """Read and check the whole manifest; None if the file has none.

    Raises:
        DamagedCheckpointError: if it is a zip whose directory or manifest cannot be read.
        NewerFormatError: if a later holdfast wrote it.

    """
    located = _find_manifest(source)
    if located is None:
        return None
    try:
        return decode(source.read(located.data_offset, located.size))
    except ManifestError as error:
        raise _refusal(source, error) from error


def _refusal(source: Source, error: ManifestError) -> DamagedCheckpointError | NewerFormatError:
    """Return the error for a manifest that cannot be read: damage, or a format of the future."""
    if isinstance(error, NewerManifestError):
        return NewerFormatError(source.path, str(error))
    return DamagedCheckpointError(source.path, "manifest", str(error))


def _find_manifest(source: Source) -> _Located | None:
    directory = _read_directory(source)
    if directory is None:
        return None
    wanted = layout.full_name(MANIFEST_NAME).decode()
    quick = _last_entry(directory, wanted)
    if quick is not None:
        return _locate_manifest(source, *quick)
    at = last = 0
    try:
        while at < len(directory):
            name, size, offset, at = layout.parse_entry(directory, at)
            if name == wanted:
                return _locate_manifest(source, size, offset)
            last = offset
    except ValueError as error:
        raise DamagedCheckpointError(source.path, _DIRECTORY, str(error)) from error
    # The manifest is the last record: where its name in the directory is damaged, its header has it still.
    header = source.read(min(last, source.size), layout.BARE_HEADER + len(wanted))
    if wanted.encode() in directory or header[layout.BARE_HEADER :] == wanted.encode():
        raise DamagedCheckpointError(source.path, _DIRECTORY, "its entries are not as they were written")
    return None


def _last_entry(directory: bytes, wanted: str) -> tuple[int, int] | None:
    """Return size and offset of the last record, where our writer puts the manifest; None if it is another.

    A listing need not walk through the hundreds of entries before it. That those are as they were written is for
    ``read_account`` to find, which compares the whole directory.
    """
    at = directory.rfind(wanted.encode()) - layout.BARE_ENTRY
    if at < 0:
        return None
    try:
        name, size, offset, end = layout.parse_entry(directory, at)
    except ValueError:
        return None
    return (size, offset) if name == wanted and end == len(directory) else None


def _locate_manifest(source: Source, size: int, offset: int) -> _Located:
    begin = offset + len(layout.local_header(MANIFEST_NAME, size, offset))
    if begin + size > source.size:
        raise DamagedCheckpointError(source.path, _DIRECTORY, "it places the manifest outside the file")
    if size > LONGEST:
        raise DamagedCheckpointError(source.path, "manifest", f"it claims {size} bytes: no manifest has so many")
    return _Located(begin, size)


def _read_directory(source: Source) -> bytes | None:
    """Return the central directory; None if the file is no zip, or not one of torch's form."""
    tail = source.read(max(0, source.size - layout.END_SIZE), layout.END_SIZE)
    found = layout.parse_end(tail, source.size)
    if found is not None and found.size > LONGEST:
        raise DamagedCheckpointError(source.path, _DIRECTORY, f"it claims {found.size} bytes: none has so many")
    if found is not None:
        return source.read(found.offset, found.size)
    if looks_like_zip(source) and not _made_by_others(source):
        problem = "the end of the file is missing or damaged: it was cut off, extended or overwritten"
        raise DamagedCheckpointError(source.path, _DIRECTORY, problem)
    return None


def _made_by_others(source: Source) -> bool:
    """Tell whether a zip that lacks torch's kind of end is one that some other program wrote."""
    tail = source.read(max(0, source.size - _TAIL), _TAIL)
    return tail[-22:-18] == b"PK\x05\x06" and layout.full_name(MANIFEST_NAME) not in tail


@dataclass(frozen=True)
class Account:
    """A file's account of itself: what it says it holds, and so what each of its bytes must be.

    Attributes:
        manifest: as it stands in the file, its own checksums checked.
        placed: every record, the manifest last. They fill the file from its beginning up to the
            central directory, so that no place or size here goes beyond the file.

    """

    manifest: Manifest
    placed: tuple[layout.Placed, ...]

    @property
    def end(self) -> int:
        """Where the records end and the central directory begins."""
        return self.placed[-1].end_offset

    @cached_property
    def starts(self) -> list[int]:
        """Where each record's header begins."""
        return [item.header_offset for item in self.placed]

    def label(self, index: int) -> str:
        """Return a record's name in messages, with the tensor's that it holds."""
        name = self.placed[index].record.name
        tensor = next((tensor.name for tensor in self.manifest.tensors if tensor.record == name), None)
        return f"record {name}" + (f" ({tensor})" if tensor else "")


def read_account(source: Source) -> Account | None:
    """Read the manifest and check the framing that is not between the records; None if there is no manifest.

    Raises:
        DamagedCheckpointError: if the manifest, the central directory or the file's size is not as
            it was written.
        NewerFormatError: if a later holdfast wrote it.

    """
    located = _find_manifest(source)
    if located is None:
        return None
    data = source.read(located.data_offset, located.size)
    try:
        manifest = decode(data)
    except ManifestError as error:
        raise _refusal(source, error) from error
    if sum(record.size for record in manifest.records) > source.size:
        raise DamagedCheckpointError(source.path, "manifest", "it tells of more bytes than the file has")
    own = Record(MANIFEST_NAME, len(data), crc32(data))
    account = Account(manifest, tuple(layout.place((*manifest.records, own))))
    _check_end(source, account)
    return account


def _check_end(source: Source, account: Account) -> None:
    expected = layout.central_directory(account.placed)
    if source.size != account.end + len(expected):
        problem = f"the file has {source.size} bytes but {account.end + len(expected)} were saved"
        raise DamagedCheckpointError(source.path, _DIRECTORY, problem)
    if source.read(account.end, len(expected)) != expected:
        raise DamagedCheckpointError(source.path, _DIRECTORY, "it is not as it was written")


def check_framing(source: Source, account: Account, small: Callable[[str], bool]) -> None:
    """Check what stands between the records, and the bytes of those whose names are ``small``.

    Raises:
        DamagedCheckpointError: naming the first record that is not as it was written.

    """
    inspection = Inspection(source.path, account)
    for index, item in enumerate(account.placed):
        begin, end = item.data_offset, item.data_offset + item.record.size
        parts = [(item.header_offset, end)] if small(item.record.name) else [(item.header_offset, begin)]
        for start, stop in (*parts, (end, item.end_offset)):
            for at in range(start, stop, _PART):
                inspection.take(at, memoryview(source.read(at, min(_PART, stop - at))))
        inspection.check(index, data=small(item.record.name))


def verify(source: WholeSource) -> Manifest | None:
    """Check every byte of a file against its manifest; None if it has no manifest.

    Raises:
        DamagedCheckpointError: naming the first record that is not as it was written.

    """
    account = read_account(source)
    if account is None:
        return None
    inspection = Inspection(source.path, account)
    source.pour(account.end, inspection.take)
    inspection.look_again(partial(source.pour_again, take=inspection.take))
    inspection.finish()
    return account.manifest


class Inspection:
    """Compares the bytes of a file, as they are handed over, with what its account says they must be.

    ``take`` may be called from several threads and in any order, once for each byte; ``finish`` knows
    whether all have come.
    """

    def __init__(self, path: str, account: Account) -> None:
        """Expect the bytes from the file's beginning up to ``account.end``."""
        self._path = path
        self._account = account
        self._lock = threading.Lock()
        self._taken: list[tuple[int, int]] = []
        self._digests: dict[int, list[tuple[int, int, int]]] = {}
        self._wrong: dict[int, str] = {}
        self._twice: set[int] = set()

    def take(self, offset: int, data: memoryview) -> None:
        """Look at the bytes that stand at this offset of the file."""
        end = offset + len(data)
        digests, wrong = [], []
        for index in range(max(0, bisect_right(self._account.starts, offset) - 1), len(self._account.placed)):
            item = self._account.placed[index]
            if item.header_offset >= end:
                break
            begin, stop = item.data_offset, item.data_offset + item.record.size
            if not _agree(item.header, item.header_offset, data, offset):
                wrong.append((index, "its header is not as it was written"))
            elif not _agree(item.descriptor, stop, data, offset):
                wrong.append((index, "its data descriptor is not as it was written"))
            first, last = max(begin, offset), min(stop, end)
            if first < last:
                digests.append((index, (first, crc32(data[first - offset : last - offset]), last - first)))
        with self._lock:
            self._taken.append((offset, end))
            for index, digest in digests:
                self._digests.setdefault(index, []).append(digest)
            for index, problem in wrong:
                self._wrong[index] = problem

    def check(self, index: int, *, data: bool) -> None:
        """Say whether a record's framing, and with ``data`` its bytes, are as they were written.

        Raises:
            DamagedCheckpointError: naming it, if they are not.

        """
        problem = self._problem(index) if data else self._wrong.get(index, "")
        if problem:
            raise DamagedCheckpointError(self._path, self._account.label(index), problem)

    def finish(self) -> None:
        """Say whether all bytes have come and are as they were written.

        Raises:
            DamagedCheckpointError: naming the first record that is not.

        """
        seen = self._seen()
        for index, item in enumerate(self._account.placed):
            problem = f"the file ended after {seen} bytes" if seen < item.end_offset else self._problem(index)
            if problem:
                raise DamagedCheckpointError(self._path, self._account.label(index), problem)

    def look_again(self, pour: Callable[[int, int], bool]) -> None:
        """Have each record that is wrong taken once more: a byte that flipped on its way is no damage at rest.

        ``pour`` hands over a range again; or it returns False, where that would be the same.
        """
        seen = self._seen()
        for index, item in enumerate(self._account.placed):
            if seen < item.end_offset or not self._problem(index):
                continue
            digests, wrong = self._digests.pop(index, []), self._wrong.pop(index, None)
            if not pour(item.header_offset, item.end_offset):
                self._digests[index] = digests
                self._wrong.update({} if wrong is None else {index: wrong})
                return
            if self._problem(index):
                self._twice.add(index)
            else:
                what = printable(f"{self._account.label(index)} of {self._path}")
                logging.getLogger("holdfast").warning("%s came wrong over the network; fetched again it is whole", what)

    def _seen(self) -> int:
        """Return how many bytes have come without a gap from the file's beginning."""
        seen = 0
        for start, stop in sorted(self._taken):
            if start > seen:
                break
            seen = max(seen, stop)
        return seen

    def _problem(self, index: int) -> str:
        saved, crc = self._account.placed[index].record.crc32, 0
        for _, part, length in sorted(self._digests.get(index, ())):
            crc = combine(crc, part, length)
        wrong = self._wrong.get(index, "")
        if crc != saved and "header" not in wrong:
            wrong = f"its CRC-32 is {crc:08x} but {saved:08x} was saved"
        return f"{wrong}; it was fetched twice, and is so at rest" if wrong and index in self._twice else wrong


def _agree(expected: bytes, at: int, data: memoryview, offset: int) -> bool:
    """Compare what must stand at a place with as much of it as lies in the data."""
    first, last = max(at, offset), min(at + len(expected), offset + len(data))
    return first >= last or data[first - offset : last - offset] == expected[first - at : last - at]
