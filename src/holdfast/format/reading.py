"""Reading a checkpoint file's own account of itself, and checking every byte of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from holdfast.errors import DamagedCheckpointError
from holdfast.format import layout
from holdfast.format.manifest import MANIFEST_NAME, ManifestError, decode, decode_facts
from holdfast.records import Facts, Manifest, Record

_BLOCK = 1 << 22
_FACTS_GUESS = 1 << 13  # bytes in which the first line of most manifests fits
_DIRECTORY = "central directory"
_TAIL = 1 << 16


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


@dataclass(frozen=True)
class _Located:
    data_offset: int
    size: int
    record: Record | None = None


def looks_like_zip(source: Source) -> bool:
    """Tell whether the file begins or ends like the zip that torch writes."""
    tail = source.read(max(0, source.size - layout.END_SIZE), layout.END_SIZE)
    return source.read(0, 4) == b"PK\x03\x04" or tail[-22:-18] == b"PK\x05\x06"


def read_facts(source: Source) -> Facts | None:
    """Read the first line of the manifest and no more; None if the file has no manifest.

    Raises:
        DamagedCheckpointError: if it is a zip whose directory or manifest cannot be read.

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
        raise DamagedCheckpointError(source.path, "manifest", str(error)) from error


def read_manifest(source: Source) -> Manifest | None:
    """Read and check the whole manifest; None if the file has none.

    Raises:
        DamagedCheckpointError: if it is a zip whose directory or manifest cannot be read.

    """
    located = _find_manifest(source)
    if located is None:
        return None
    try:
        return decode(source.read(located.data_offset, located.size))
    except ManifestError as error:
        raise DamagedCheckpointError(source.path, "manifest", str(error)) from error


def _find_manifest(source: Source) -> _Located | None:
    directory = _read_directory(source)
    if directory is None:
        return None
    wanted = layout.full_name(MANIFEST_NAME).decode()
    at = 0
    try:
        while at < len(directory):
            name, size, offset, at = layout.parse_entry(directory, at)
            if name == wanted:
                return _locate_manifest(source, size, offset)
    except ValueError as error:
        raise DamagedCheckpointError(source.path, _DIRECTORY, str(error)) from error
    if layout.full_name(MANIFEST_NAME) in directory:
        raise DamagedCheckpointError(source.path, _DIRECTORY, "its entries are not as they were written")
    return None


def _locate_manifest(source: Source, size: int, offset: int) -> _Located:
    begin = offset + len(layout.local_header(MANIFEST_NAME, size, offset))
    if begin + size > source.size:
        raise DamagedCheckpointError(source.path, _DIRECTORY, "it places the manifest outside the file")
    return _Located(begin, size)


def _read_directory(source: Source) -> bytes | None:
    """Return the central directory; None if the file is no zip, or not one of torch's form."""
    tail = source.read(max(0, source.size - layout.END_SIZE), layout.END_SIZE)
    found = layout.parse_end(tail, source.size)
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


def verify(source: Source) -> Manifest | None:
    """Check every byte of a file against its manifest; None if it has no manifest.

    Raises:
        DamagedCheckpointError: naming the first record that is not as it was written.

    """
    manifest = read_manifest(source)
    if manifest is None:
        return None
    located = _find_manifest(source)
    assert located is not None  # noqa: S101 - read_manifest found it
    data = source.read(located.data_offset, located.size)
    own = Record(MANIFEST_NAME, len(data), zlib.crc32(data))
    if sum(record.size for record in manifest.records) > source.size:
        raise DamagedCheckpointError(source.path, "manifest", "it tells of more bytes than the file has")
    placed = layout.place((*manifest.records, own))
    tensors = {tensor.record: tensor.name for tensor in reversed(manifest.tensors)}
    for item in placed:
        _verify_record(source, item, tensors.get(item.record.name))
    _verify_end(source, placed)
    return manifest


def _verify_record(source: Source, item: layout.Placed, tensor: str | None) -> None:
    record = item.record
    label = f"record {record.name}" + (f" ({tensor})" if tensor else "")
    header = item.header
    if source.read(item.header_offset, len(header)) != header:
        raise DamagedCheckpointError(source.path, label, "its header is not as it was written")
    crc = 0
    for block in _blocks(source, item.data_offset, record.size):
        crc = zlib.crc32(block, crc)
    if crc != record.crc32:
        problem = f"its CRC-32 is {crc:08x} but {record.crc32:08x} was saved"
        raise DamagedCheckpointError(source.path, label, problem)
    descriptor = item.descriptor
    if source.read(item.data_offset + record.size, len(descriptor)) != descriptor:
        raise DamagedCheckpointError(source.path, label, "its data descriptor is not as it was written")


def _blocks(source: Source, offset: int, size: int) -> Iterator[bytes]:
    end = offset + size
    while offset < end:
        block = source.read(offset, min(_BLOCK, end - offset))
        if not block:
            return
        yield block
        offset += len(block)


def _verify_end(source: Source, placed: list[layout.Placed]) -> None:
    expected = layout.central_directory(placed)
    start = placed[-1].end_offset
    if source.size != start + len(expected):
        problem = f"the file has {source.size} bytes but {start + len(expected)} were saved"
        raise DamagedCheckpointError(source.path, _DIRECTORY, problem)
    if source.read(start, len(expected)) != expected:
        raise DamagedCheckpointError(source.path, _DIRECTORY, "it is not as it was written")
