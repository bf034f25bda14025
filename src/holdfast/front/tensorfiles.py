"""Reading safetensors: one file, or the shards of an index. Nothing in them is run, and no name leads elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

import torch
from typing_extensions import Self

from holdfast.engine.load import opened
from holdfast.engine.streaming import PIECE, bytes_of
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, LoadError, printable
from holdfast.format import safetensors as form
from holdfast.front.dtypes import TORCH
from holdfast.front.shards import INDEX, SUFFIX, own_words
from holdfast.records import Facts
from holdfast.source import FileSource
from holdfast.storage import open_store, split_path

_LARGEST_INDEX = 1 << 28  # bytes that are read of an index

Made = tuple[str, tuple[int, ...], torch.dtype, Callable[[], torch.Tensor]]


@dataclass(frozen=True)
class Index:
    """Which files there are: their paths, and for each tensor of an index the file that must hold it."""

    paths: tuple[str, ...]
    places: Mapping[str, str] | None = None


def index_of(path: str) -> Index | None:
    """Return the files that a path means; None if it means none of safetensors.

    Raises:
        CheckpointNotFoundError: if it is a directory that holds none.
        LoadError: if it holds several that no index joins, or the index cannot be read.

    """
    if path.endswith(INDEX):
        return _read_index(path)
    if path.endswith(SUFFIX):
        return Index((path,))
    store = open_store(path)
    if store.is_local and not os.path.isdir(store.root):
        return None
    names = [blob.name for blob in store.blobs() if blob.name.endswith((SUFFIX, INDEX))]
    if not store.is_local and not names:
        return None
    indexes = [name for name in names if name.endswith(INDEX)]
    chosen = indexes or names
    if len(chosen) == 1:
        return index_of(store.path(chosen[0]))
    if not chosen:
        msg = f"{printable(path)} is a directory in which there is no {SUFFIX} file"
        raise CheckpointNotFoundError(msg)
    msg = f"{printable(path)} has {len(chosen)} of them and no index: name one: {printable(', '.join(chosen[:5]))}"
    raise LoadError(msg)


def _read_index(path: str) -> Index:
    root, _ = split_path(path)
    with opened(path) as (source, _file):
        text = source.read(0, _LARGEST_INDEX)
    try:
        places = json.loads(text)["weight_map"]
        names = set(places.values())
        fine = bool(names) and all(isinstance(name, str) for name in (*places, *names))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = f"it is no index: {type(error).__name__}"
        raise DamagedCheckpointError(path, "the index", problem) from error
    if not fine:
        raise DamagedCheckpointError(path, "the index", "its weight_map is not one of names to files")
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(SUFFIX):
            problem = f"it names the file {name!r:.80}, which is none beside it"
            raise DamagedCheckpointError(path, "the index", problem)
    store = open_store(root)
    return Index(tuple(store.path(name) for name in sorted(names)), {key: store.path(places[key]) for key in places})


class TensorFiles:
    """The tensors of open files. A context manager: the tensors can be made until it is left."""

    def __init__(self, index: Index) -> None:
        """Open nothing yet."""
        self._index = index
        self._stack = ExitStack()
        self._sources: dict[str, FileSource] = {}
        self._headers: dict[str, form.Header] = {}

    def __enter__(self) -> Self:
        """Open all files, and check that their headers account for every byte, and for what the index tells of.

        Raises:
            LoadError: naming the file that is missing, damaged, or not what the index says.

        """
        try:
            for path in self._index.paths:
                source, _ = self._stack.enter_context(opened(path))
                self._sources[path] = source
                self._headers[path] = _header(source)
            self._check()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files."""
        self._stack.close()

    def _check(self) -> None:
        found: dict[str, str] = {}
        for path, header in self._headers.items():
            for entry in header.entries:
                if entry.name in found:
                    raise DamagedCheckpointError(path, entry.name, f"it is in {found[entry.name]}, too")
                found[entry.name] = path
        for name, path in (self._index.places or {}).items():
            if found.get(name) != path:
                raise DamagedCheckpointError(path, name, "the index says that it is there, and it is not")

    def tensors(self) -> Iterator[Made]:
        """Yield name, shape and dtype of each tensor, and what reads it, in the order of their names."""
        places = [(entry, path) for path, header in self._headers.items() for entry in header.entries]
        for entry, path in sorted(places, key=lambda place: place[0].name):
            make = partial(_read, self._sources[path], entry, self._headers[path].start)
            yield entry.name, entry.shape, TORCH[entry.dtype], make

    def tied(self) -> dict[str, str]:
        """Return the names that are other names of a tensor, as the metadata of the files tell."""
        names = {entry.name for header in self._headers.values() for entry in header.entries}
        tied: dict[str, str] = {}
        for header in self._headers.values():
            own = own_words(header.metadata).get("tied")
            for told in (header.metadata, own if isinstance(own, dict) else {}):
                tied.update(
                    {
                        name: kept
                        for name, kept in told.items()
                        if name not in names and isinstance(kept, str) and kept in names
                    }
                )
        return tied

    def facts(self) -> Facts:
        """Return what the files say of themselves: those of an export of ours step, epoch and metrics."""
        own: dict[str, Any] = {}
        for header in self._headers.values():
            own = own or own_words(header.metadata)
        plain = {key: own.get(key) for key in ("step", "epoch")}
        counts = {key: value if type(value) is int and 0 <= value < 1 << 62 else 0 for key, value in plain.items()}
        time = own.get("time")
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        return Facts(
            step=counts["step"],
            epoch=counts["epoch"],
            time=time if isinstance(time, str) and time else now,
            metrics=_metrics(own.get("metrics")),
            run=own["run"] if isinstance(own.get("run"), str) else "",
            weights_only=True,
        )


def _metrics(value: Any) -> dict[str, float]:
    try:
        return {name: float(text) for name, text in value.items()}
    except (AttributeError, TypeError, ValueError):  # of a stranger who has used our word
        return {}


def _header(source: FileSource) -> form.Header:
    try:
        length = form.header_length(source.read(0, form.LENGTH_SIZE))
        return form.decode(source.read(form.LENGTH_SIZE, length), source.size)
    except form.HeaderError as error:
        raise DamagedCheckpointError(source.path, "the header", str(error)) from error


def _read(source: FileSource, entry: form.Entry, start: int) -> torch.Tensor:
    """Return one tensor.

    Raises:
        DamagedCheckpointError: if the file has become shorter.

    """
    tensor = torch.empty(entry.shape, dtype=TORCH[entry.dtype], device="cpu")
    view, done = bytes_of(tensor), 0
    while done < entry.size:
        piece = source.read(start + entry.offset + done, min(PIECE, entry.size - done))
        if not piece:
            raise DamagedCheckpointError(source.path, entry.name, f"the file ended after {done} of its bytes")
        view[done : done + len(piece)] = piece
        done += len(piece)
    return tensor
