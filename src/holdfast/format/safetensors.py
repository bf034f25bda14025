"""The framing of a safetensors file: what stands before the tensors' bytes, written and read.

Eight bytes of length, a JSON header, then the tensors one after the other without a gap. The header is a
function of names, dtypes and shapes alone, so that a file of any size can be written as a stream, to any store;
its bytes are those that the ``safetensors`` library writes. What is read here is held to that library's rules.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LENGTH_SIZE = 8  # bytes of the header's length
LONGEST = 100_000_000  # bytes of a header: what the library reads
_ALIGNMENT = 8
_METADATA = "__metadata__"
_LARGEST = 2**62

# By name, with the bytes of an element, in the order in which the library lays the tensors out.
WIDTHS: Mapping[str, int] = {
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
    "F32": 4,
    "U32": 4,
    "I32": 4,
    "BF16": 2,
    "F16": 2,
    "U16": 2,
    "I16": 2,
    "F8_E5M2FNUZ": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_PLACES = {dtype: place for place, dtype in enumerate(WIDTHS)}


class HeaderError(ValueError):
    """The bytes are no header of a safetensors file."""


@dataclass(frozen=True)
class Entry:
    """One tensor: its name, the format's name of its dtype, its shape, and where its bytes begin behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """Its bytes."""
        return WIDTHS[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        entries: the tensors, in the order of their bytes.
        start: where the first tensor's bytes begin in the file.
        metadata: texts by their names.

    """

    entries: tuple[Entry, ...]
    start: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.start + sum(entry.size for entry in self.entries)


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """Return the tensors in the order in which they stand in a file, each at its place."""
    return list(_placed(sorted(entries, key=lambda entry: (_PLACES[entry.dtype], entry.name.encode()))))


def _placed(entries: Iterable[Entry]) -> Iterator[Entry]:
    offset = 0
    for entry in entries:
        yield Entry(entry.name, entry.dtype, entry.shape, offset)
        offset += entry.size


def encode(arranged: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Return everything that stands before the tensors' bytes.

    Raises:
        HeaderError: if a reader would refuse it: too long, or a tensor of the name that the metadata has.

    """
    value: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    for entry in arranged:
        if entry.name == _METADATA:
            msg = f"a tensor cannot be called {_METADATA!r} there"
            raise HeaderError(msg)
        offsets = [entry.offset, entry.offset + entry.size]
        value[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        msg = f"a name cannot be written: {error}"
        raise HeaderError(msg) from error
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > LONGEST:
        msg = f"the header would take {len(text)} bytes: at most {LONGEST} are read"
        raise HeaderError(msg)
    return len(text).to_bytes(LENGTH_SIZE, "little") + text


def header_length(first: bytes) -> int:
    """Return how many bytes the header has, from the first eight of a file.

    Raises:
        HeaderError: if there are not so many, or more than any reader takes.

    """
    length = int.from_bytes(first[:LENGTH_SIZE], "little")
    if len(first) < LENGTH_SIZE or length > LONGEST:
        msg = "its beginning is not that of a safetensors file"
        raise HeaderError(msg)
    return length


def decode(text: bytes, file_size: int) -> Header:
    """Read a header.

    Args:
        text: its bytes, without the eight of the length.
        file_size: of the whole file.

    Raises:
        HeaderError: if it is none, or does not account for every byte of the file.

    """
    if text[:1] != b"{":
        msg = "its header is no JSON object"
        raise HeaderError(msg)
    try:
        value = json.loads(text, object_pairs_hook=_once)
        metadata = _metadata(value.pop(_METADATA, {}))
        found = [_entry(name, **item) for name, item in value.items()]
    except HeaderError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        msg = f"its header cannot be read: {type(error).__name__}: {error}"
        raise HeaderError(msg) from error
    header = Header(tuple(sorted(found, key=lambda entry: (entry.offset, entry.size))), 8 + len(text), metadata)
    expected = 0
    for entry in header.entries:
        if entry.offset != expected:
            msg = f"the tensor {entry.name!r} begins at {entry.offset} and not at {expected}, where the last one ends"
            raise HeaderError(msg)
        expected += entry.size
    if header.size != file_size:
        msg = f"it has {file_size} bytes, and its header tells of {header.size}"
        raise HeaderError(msg)
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        msg = "a name stands twice"
        raise HeaderError(msg)
    return value


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        msg = "its metadata are not texts"
        raise HeaderError(msg)
    return value


def _entry(name: str, *, dtype: Any, shape: Any, data_offsets: Any) -> Entry:
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        msg = f"the tensor {name!r} is of the dtype {dtype!r:.40}, which is not known here"
        raise HeaderError(msg)
    numbers = isinstance(shape, list) and isinstance(data_offsets, list) and len(data_offsets) == len(("begin", "end"))
    if not numbers or any(type(number) is not int or not 0 <= number < _LARGEST for number in (*shape, *data_offsets)):
        msg = f"the tensor {name!r} has no shape and place that can be"
        raise HeaderError(msg)
    entry = Entry(name, dtype, tuple(shape), data_offsets[0])
    if entry.offset + entry.size != data_offsets[1]:
        msg = f"the tensor {name!r} has {data_offsets[1] - entry.offset} bytes: its shape asks for {entry.size}"
        raise HeaderError(msg)
    return entry
