"""DCP's ``.metadata``: written once for all ranks, and read without running what is in it.

It is a pickle. DCP's own reader unpickles whatever is there; here only DCP's own classes of metadata are built, and
what they hold is looked at.
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

from holdfast.engine.sharded.unpickling import Unpickler
from holdfast.errors import DamagedCheckpointError, UnsafeCheckpointError, printable
from holdfast.records import TensorInfo

LONGEST = 2**31  # bytes of a file of metadata: those of several million shards
_LARGEST = 2**62  # bytes or elements
_DEPTH = 64  # of a path in a nested state, and dimensions of a tensor


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
        value = Unpickler(io.BytesIO(data)).load()
        _check(value)
    except UnsafeCheckpointError as error:
        msg = f"{printable(path)}: {error}. Metadata need no such thing: do not load it with any other program either"
        raise UnsafeCheckpointError(msg, error.needs) from error
    except Exception as error:  # what a pickle can make of the bytes of a stranger knows no bounds
        raise DamagedCheckpointError(path, "the metadata", f"{type(error).__name__}: {error}"[:300]) from error
    return value  # type: ignore[no-any-return]


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
    return isinstance(value, Sequence) and type(value) is torch.Size and len(value) <= _DEPTH and _fine(value)


def _fine(value: torch.Size) -> bool:
    return all(0 <= item <= _LARGEST for item in value) and math.prod(value) <= _LARGEST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _want(fine: bool, what: str, value: object) -> None:  # noqa: FBT001 - an assertion that stays
    if not fine:
        plain = type(value) in (str, int, torch.Size)  # of what holds others the text may be without end
        msg = f"{what} cannot be {value!r:.120}" if plain else f"{what} cannot be this {type(value).__name__}"
        raise ValueError(msg)
