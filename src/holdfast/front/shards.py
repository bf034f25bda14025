"""Weights as safetensors files: one, or several with the index that Hugging Face's loader reads."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from holdfast.engine.commit import save_errors
from holdfast.engine.streaming import PIECE, Promises, bytes_of, counted
from holdfast.errors import ConfigurationError, printable
from holdfast.format import safetensors as form
from holdfast.front.dtypes import SAFETENSORS, Cast
from holdfast.front.weights import Weights
from holdfast.records import IMPORTED, Facts
from holdfast.storage import Store

SUFFIX = ".safetensors"
INDEX = ".safetensors.index.json"
OWN = "holdfast"  # under which the metadata have what an import takes up again

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


@dataclass(frozen=True)
class Shelf:
    """Where the files of one export go: the store, how their names begin, and whether others may be written over."""

    store: Store
    stem: str
    force: bool = False

    @property
    def single(self) -> str:
        """The name of the only file."""
        return self.stem + SUFFIX

    @property
    def index(self) -> str:
        """The name of the index."""
        return self.stem + INDEX

    def shard(self, place: int, count: int) -> str:
        """Return the name of one of several files, counted from 1."""
        return f"{self.stem}-{place:05d}-of-{count:05d}{SUFFIX}"

    def there(self) -> list[str]:
        """Return the names of the files of an export that is there already."""
        names = [blob.name for blob in self.store.blobs()]
        own = (self.single, self.index)
        start = len(self.stem)
        return [
            name for name in names if name in own or (name.startswith(self.stem) and _SHARD.fullmatch(name[start:]))
        ]


def write_shards(  # noqa: PLR0913, PLR0917 - what goes into the files, and how
    shelf: Shelf,
    weights: Weights,
    cast: Cast,
    facts: Facts,
    limit: int,
    advance: Callable[[int], None],
    promises: Promises,
) -> tuple[tuple[str, ...], int]:
    """Write the files, the index last; return their paths and the tensors' bytes.

    Raises:
        ConfigurationError: if files are there that may not be written over.
        SaveError: if one cannot be written; no index is there then.

    """
    before = shelf.there()
    if before and not shelf.force:
        msg = (
            f"{shelf.store.path(before[0])} is there already: choose another directory, or write over the export "
            "that is there with force=True (--force)"
        )
        raise ConfigurationError(printable(msg))
    # By name, so that what was imported and is exported again lies in the same files.
    entries = [_entry(name, tensor, cast) for name, tensor in sorted(weights.tensors.items())]
    groups = split(entries, limit)
    names = [shelf.shard(place, len(groups)) for place in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else [shelf.single]
    with save_errors(shelf.store.path(shelf.index)):
        if shelf.index in before:  # what it tells of is about to change: no reader may believe it meanwhile
            shelf.store.remove(shelf.index)
    for name, group in zip(names, groups, strict=True):
        with save_errors(shelf.store.path(name)):
            head = form.encode(arranged := form.arrange(group), _metadata(weights, facts, group))
            shelf.store.put(name, counted(_bytes(head, arranged, weights.tensors, cast, promises), advance))
    with save_errors(shelf.store.path(shelf.index)):
        for name in before:
            if name not in names:
                shelf.store.remove(name)
        size = sum(entry.size for entry in entries)
        if len(groups) > 1:
            shelf.store.put(shelf.index, [_index(names, groups, size)])
            names.append(shelf.index)
    return tuple(map(shelf.store.path, names)), size


def split(entries: Sequence[form.Entry], limit: int) -> list[list[form.Entry]]:
    """Return the tensors in groups, in order, none larger than the limit unless it is of one tensor."""
    groups: list[list[form.Entry]] = [[]]
    size = 0
    for entry in entries:
        if groups[-1] and size + entry.size > limit:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.size
    return groups


def _entry(name: str, tensor: torch.Tensor, cast: Cast) -> form.Entry:
    return form.Entry(name, SAFETENSORS[cast.result(tensor)], tuple(tensor.shape))


def _metadata(weights: Weights, facts: Facts, group: Sequence[form.Entry]) -> dict[str, str]:
    """Return what a file says beside its tensors: its kind, the other names of tensors as HF has them, our own."""
    here = {entry.name for entry in group}
    tied = {name: kept for name, kept in weights.tied.items() if kept in here}
    origin = facts.resumed_from.run if facts.run == IMPORTED and facts.resumed_from is not None else facts.run
    metrics = {key: repr(value) for key, value in facts.metrics.items()}
    known = {"step": facts.step, "epoch": facts.epoch, "time": facts.time, "run": origin, "metrics": metrics}
    own = json.dumps({**known, "tied": dict(weights.tied)}, sort_keys=True)
    return {**tied, OWN: own, "format": "pt"}


def _bytes(
    head: bytes,
    arranged: Sequence[form.Entry],
    tensors: Mapping[str, torch.Tensor],
    cast: Cast,
    promises: Promises,
) -> Iterator[bytes | memoryview]:
    yield head
    for entry in arranged:
        tensor = promises.kept(tensors[entry.name])
        if not tensor.is_contiguous():
            tensor = tensor.contiguous()
        flat = tensor.reshape(-1)
        step = max(1, PIECE // tensor.element_size())
        for at in range(0, flat.numel(), step):
            yield bytes_of(cast(entry.name, flat[at : at + step]))


def _index(names: Sequence[str], groups: Sequence[Sequence[form.Entry]], size: int) -> bytes:
    places = {entry.name: name for name, group in zip(names, groups, strict=True) for entry in group}
    value = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(value, indent=2).encode() + b"\n"


def own_words(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an export of ours has said in the metadata; nothing for another's, or what cannot be read."""
    value: Any = None
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        value = json.loads(metadata.get(OWN, "null"))
    return value if isinstance(value, dict) else {}
