"""DCP's ``.metadata``: written once for all ranks, and read without running what is in it.

It is a pickle. DCP's own reader unpickles whatever is there; here only DCP's own classes of metadata are built, what
they hold is looked at, and opcodes that could take all memory by a number are refused before any is obeyed.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from holdfast.errors import DamagedCheckpointError, UnsafeCheckpointError, printable
from holdfast.records import TensorInfo

LONGEST = 2**31  # bytes of a file of metadata: those of several million shards
_LARGEST = 2**62  # bytes or elements
_DEPTH = 64  # of a path in a nested state

_CLASSES = {
    ("torch.distributed.checkpoint.metadata", name): getattr(dcp, name)
    for name in (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    )
} | {("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo, ("torch", "Size"): torch.Size}
_DTYPES = {
    ("torch", str(value).partition(".")[2]): value for value in vars(torch).values() if type(value) is torch.dtype
}
_PATHS = frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"})


def encode(metadata: Metadata, places: Iterator[tuple[MetadataIndex, str, int, int]]) -> bytes:
    """Return the file's bytes. ``places``: each item, and in which file it lies, from where, how many bytes."""
    stored = {index: _StorageInfo(name, offset, length) for index, name, offset, length in places}
    whole = Metadata(metadata.state_dict_metadata, metadata.planner_data, stored, None, CURRENT_DCP_VERSION)
    return pickle.dumps(whole, protocol=4)


def infos(metadata: Metadata) -> tuple[TensorInfo, ...]:
    """Return what the manifest says of the whole tensors; they have no record of their own."""
    return tuple(
        TensorInfo(name, str(item.properties.dtype).removeprefix("torch."), tuple(item.size), "")
        for name, item in metadata.state_dict_metadata.items()
        if isinstance(item, TensorStorageMetadata)
    )


def decode(data: bytes, path: str) -> Metadata:
    """Build the metadata from the bytes of a file.

    Raises:
        UnsafeCheckpointError: if it needs any class that metadata do not consist of.
        DamagedCheckpointError: if it is not whole, or has a form that DCP does not write.

    """
    try:
        _scan(data)
        value = _Unpickler(io.BytesIO(data)).load()
        _check(value)
    except UnsafeCheckpointError as error:
        msg = f"{printable(path)}: {error}. Metadata need no such thing: do not load it with any other program either"
        raise UnsafeCheckpointError(msg, error.needs) from error
    except Exception as error:  # what a pickle can make of the bytes of a stranger knows no bounds
        raise DamagedCheckpointError(path, "the metadata", f"{type(error).__name__}: {error}"[:300]) from error
    return value  # type: ignore[no-any-return]


class _Unpickler(pickle.Unpickler):
    """Builds DCP's classes of metadata and no others."""

    def find_class(self, module: str, name: str) -> Any:
        found = _CLASSES.get((module, name)) or _DTYPES.get((module, name))
        if found is not None:
            return found
        if (module, name) == ("torch.serialization", "_get_layout"):
            return _layout
        if module in ("pathlib", "pathlib._local") and name in _PATHS:
            return _joined  # a path is a text here: where it was saved says nothing of where it is
        needs = f"{module}.{name}"
        msg = f"it names {printable(needs)[:200]}"
        raise UnsafeCheckpointError(msg, (needs,))


def _joined(*parts: str) -> str:
    return "/".join(parts)


def _layout(name: str) -> torch.layout:
    if name != "torch.strided":
        msg = f"a tensor of the layout {name!r:.80}"
        raise ValueError(msg)
    return torch.strided


# The bytes behind each opcode that DCP's pickles have, and those that protocols 2 to 5 have besides, but for what
# takes memory by a number alone, or calls something by a code.
_ARGUMENTS = (
    dict.fromkeys(b"(.0)]}Nasteu\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94RbQ1", 0)
    | dict.fromkeys(b"Kh\x80", 1)
    | dict.fromkeys(b"M", 2)
    | dict.fromkeys(b"Jj", 4)
    | dict.fromkeys(b"G\x95", 8)
)
_LENGTHS = {ord("X"): 4, ord("B"): 4, ord("C"): 1, ord("U"): 1, 0x8C: 1, 0x8A: 1, 0x8D: 8, 0x8E: 8}
_BINPUT, _LONG_BINPUT, _GLOBAL, _STOP = ord("q"), ord("r"), ord("c"), ord(".")


def _scan(data: bytes) -> None:
    """See that a pickle can be obeyed: no opcode but the common ones, no place in its memo beyond its own length."""
    at, size = 0, len(data)
    arguments, lengths = _ARGUMENTS, _LENGTHS
    while at < size:
        code = data[at]
        at += 1
        more = arguments.get(code)
        if more is not None:
            if code == _STOP:
                return
            at += more
        elif (width := lengths.get(code)) is not None:
            at += width + int.from_bytes(data[at : at + width], "little")
        elif code == _BINPUT:
            at += 1
        elif code == _LONG_BINPUT and int.from_bytes(data[at : at + 4], "little") <= size:
            at += 4
        elif code == _GLOBAL:
            at = data.index(b"\n", data.index(b"\n", at) + 1) + 1
        else:
            msg = f"the pickle has an opcode {code:#04x} at byte {at - 1} that is not obeyed here"
            raise ValueError(msg)
    msg = "the pickle has no end"
    raise ValueError(msg)


def _check(value: Any) -> None:
    """See that everything is what its name says.

    Raises:
        ValueError, TypeError, AttributeError: if it is not.

    """
    _want(type(value) is Metadata, "the whole", value)
    _want(type(value.state_dict_metadata) is dict, "state_dict_metadata", value.state_dict_metadata)
    for name, item in value.state_dict_metadata.items():
        _want(type(name) is str, "a name", name)
        if type(item) is TensorStorageMetadata:
            _check_tensor(name, item)
        else:
            _want(type(item) is BytesStorageMetadata, name, item)
    stored = value.storage_data
    _want(type(stored) is dict, "storage_data", stored)
    for index, place in stored.items():
        _want(type(index) is MetadataIndex and type(index.fqn) is str, "an index", index)
        _want(index.offset is None or _is_size(index.offset), index.fqn, index.offset)
        _want(type(place) is _StorageInfo, index.fqn, place)
        name = place.relative_path
        inside = type(name) is str and name not in ("", ".", "..") and not set(name) & set("/\\\0")
        _want(inside, f"the file of {index.fqn}", name)
        _want(_is_count(place.offset) and _is_count(place.length), index.fqn, place)
    _check_paths(value.planner_data)


def _check_tensor(name: str, item: TensorStorageMetadata) -> None:
    _want(_is_size(item.size) and type(item.chunks) is list, name, item)
    _want(type(item.properties) is dcp.TensorProperties and type(item.properties.dtype) is torch.dtype, name, item)
    for chunk in item.chunks:
        _want(type(chunk) is dcp.ChunkStorageMetadata, name, chunk)
        _want(_is_size(chunk.offsets) and _is_size(chunk.sizes), name, chunk)
        _want(len(chunk.offsets) == len(chunk.sizes) == len(item.size), name, chunk)
        for begin, length, whole in zip(chunk.offsets, chunk.sizes, item.size, strict=True):
            _want(begin + length <= whole, name, chunk)


def _check_paths(paths: Any) -> None:
    if paths is None:
        return
    _want(isinstance(paths, Mapping), "planner_data", paths)
    for name, path in paths.items():
        _want(type(name) is str and isinstance(path, (tuple, list)) and 0 < len(path) <= _DEPTH, "a path", path)
        for part in path:
            _want(type(part) is str or (_is_count(part) and part < 1 << 24), name, part)


def _is_size(value: Any) -> bool:
    return isinstance(value, Sequence) and type(value) is torch.Size and math.prod(value) <= _LARGEST and _fine(value)


def _fine(value: torch.Size) -> bool:
    return all(0 <= item <= _LARGEST for item in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _want(fine: bool, what: str, value: object) -> None:  # noqa: FBT001 - an assertion that stays
    if not fine:
        msg = f"{what} cannot be {value!r:.120}"
        raise ValueError(msg)
