"""Files that say nothing of themselves: other programs' zips, and what torch wrote before there were zips."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from holdfast.errors import DamagedCheckpointError
from holdfast.format import reading
from holdfast.source import FileSource

_TAR_MAGIC_OFFSET = 257
_LOCAL_HEADER = 30  # bytes, without the name
_EXPANSION = 4  # times the file's size that its records may have in all; torch compresses only code
_LEAST = 1 << 26  # bytes that they may have in any case
_ENCODINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may take gigabytes for a few bytes


class Stored(NamedTuple):
    """A record that lies in a zip as it is: its name without the archive's, where its bytes begin, how many, CRC-32."""

    name: str
    begin: int
    size: int
    crc32: int


def stored_records(source: FileSource, file: BinaryIO) -> list[Stored] | None:
    """Return where the records of a zip without a manifest lie; None if it is no zip, or packed in another way.

    Raises:
        DamagedCheckpointError: if it is not whole, or a zip made to hurt its reader. Records are not read.

    """
    if not reading.looks_like_zip(source):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            _check_entries(source, entries, archive.start_dir)
    except DamagedCheckpointError:
        raise
    except Exception as error:  # zipfile lets struct's and its own many errors through
        raise DamagedCheckpointError(source.path, "the zip", str(error)) from error
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        return None
    return [_stored(source, entry) for entry in entries]


def _stored(source: FileSource, entry: zipfile.ZipInfo) -> Stored:
    header = source.read(entry.header_offset, _LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise DamagedCheckpointError(source.path, f"record {entry.filename}", "its header is not as it was written")
    lengths = struct.unpack_from("<HH", header, _LOCAL_HEADER - 4)
    begin = entry.header_offset + _LOCAL_HEADER + sum(lengths)
    if begin + entry.file_size > source.size:
        raise DamagedCheckpointError(source.path, f"record {entry.filename}", "it goes beyond the end of the file")
    return Stored(entry.filename.partition("/")[2], begin, entry.file_size, entry.CRC)


def verify_foreign(source: FileSource, file: BinaryIO) -> None:
    """Check a file without a manifest by what there is to go by.

    Raises:
        DamagedCheckpointError: if it is not whole, no checkpoint, or a zip made to hurt its reader.

    """
    if source.size == 0:
        raise DamagedCheckpointError(source.path, "the file", "it is empty")
    if reading.looks_like_zip(source):
        _verify_zip(source, file)
    elif not _looks_like_old_torch(source):
        raise DamagedCheckpointError(source.path, "the file", "its beginning is that of no checkpoint")


def _looks_like_old_torch(source: FileSource) -> bool:
    """Tell whether a file begins like those of torch before 1.6: pickles, earlier still a tar archive."""
    return source.read(0, 1) == b"\x80" or source.read(_TAR_MAGIC_OFFSET, 5) == b"ustar"


def _verify_zip(source: FileSource, file: BinaryIO) -> None:
    """Go by the zip's own checksums; before reading any record see that all of them can be read in the file's time."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(source, archive.infolist(), archive.start_dir)
            bad = archive.testzip()
    except DamagedCheckpointError:
        raise
    except Exception as error:  # zipfile lets struct's, zlib's and its own many errors through
        raise DamagedCheckpointError(source.path, "the zip", str(error)) from error
    if bad is not None:
        raise DamagedCheckpointError(source.path, f"record {bad}", "its CRC-32 does not match")


def _check_entries(source: FileSource, entries: Sequence[zipfile.ZipInfo], end: int) -> None:
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [entry.header_offset for entry in ordered[1:]] + [end]
    names: set[str] = set()
    total = 0
    for entry, stop in zip(ordered, ends, strict=True):
        total += entry.file_size
        problem = _problem(entry, stop)
        if entry.filename in names:
            problem = "there are two records of this name"
        if total > max(_LEAST, _EXPANSION * source.size):
            problem = f"with it the records unpack to {total} bytes, from a file of {source.size}"
        if problem:
            raise DamagedCheckpointError(source.path, f"record {entry.filename}", problem)
        names.add(entry.filename)


def _problem(entry: zipfile.ZipInfo, stop: int) -> str:
    """Say what is wrong with an entry of the directory, whose bytes must end before ``stop``; "" if nothing is."""
    if entry.header_offset < 0 or entry.header_offset + _LOCAL_HEADER + entry.compress_size > stop:
        return "it overlaps what stands behind it"
    if entry.filename.startswith("/") or ".." in entry.filename.split("/"):
        return "its name leads out of the archive"
    if entry.compress_type not in _ENCODINGS:
        return f"it is packed in a way (number {entry.compress_type}) that torch does not use"
    return ""
