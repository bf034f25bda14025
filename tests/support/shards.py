"""Small sharded checkpoints on disk, laid down by this process for as many ranks as one likes."""

from __future__ import annotations

import io
import os
import pickle

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from holdfast.format import directory, shards
from holdfast.format.digest import crc32
from holdfast.records import Facts, Manifest, Record, TensorInfo
from holdfast.storage import open_store, split_path
from holdfast.storage.marks import mark_of, marked


def state(seed=0, rows=5):
    """A few tensors, one of which does not divide, and a number."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "state_dict.weight": torch.rand(rows, 3, generator=generator),
        "state_dict.bias": torch.rand(4, generator=generator).to(torch.bfloat16),
        "global_step": 7,
    }


def save_sharded(path, tensors=None, ranks=2, extra=None, *, own_names=False, **facts):
    """Commit a sharded checkpoint as so many ranks do; return its path.

    Its shards have the names that they had before each save had its own, or with ``own_names`` those of now.
    """
    root, name = split_path(path)
    tensors = state() if tensors is None else tensors
    facts = {"names": {"ranked": name}, "run": "aaaa", "time": "2026-01-02T03:04:05.678+00:00", **facts}
    store = open_store(root)
    draft = store.draft(name)
    files, metadata = _files(tensors, ranks, draft.mark if own_names else "")
    for file, data in files.items():
        store.put(f"{draft.folder}/{file}", [data])
    small = {".metadata": pickle.dumps(metadata), **(extra or {})}
    for file, data in small.items():
        draft.add(file, data)
    records = []
    for file, data in (files | small).items():
        begin = shards.table_offset(data[-shards.FOOTER_SIZE :], len(data)) if file.endswith(shards.SUFFIX) else 0
        records.append(Record(file, len(data), crc32(data[begin:])))
    infos = tuple(
        TensorInfo(key, str(value.dtype).removeprefix("torch."), tuple(value.shape), key)
        for key, value in tensors.items()
        if isinstance(value, torch.Tensor)
    )
    manifest = Manifest(Facts(ranks=ranks, **facts), tuple(records), infos)
    draft.add(directory.MANIFEST_FILE, directory.encode(manifest))
    draft.settle({file: len(data) for file, data in files.items()})
    return str(path)


def shard_of(path, rank):
    """The file of a rank in the directory of a checkpoint: its path."""
    (found,) = (name for name in os.listdir(path) if name.startswith(f"__{rank}_") and name.endswith(".distcp"))
    return os.path.join(path, found)


def unmarked(name):
    """The name of a file without the mark that each save draws anew."""
    return name.replace(f".holdfast-{mark_of(name)}", "")


def save_plain(path, tensors=None, ranks=2):
    """Write a directory as plain DCP leaves it: without a manifest."""
    os.makedirs(path)
    files, metadata = _files(state() if tensors is None else tensors, ranks)
    for file, data in {**files, ".metadata": pickle.dumps(metadata)}.items():
        with open(os.path.join(path, file), "wb") as out:
            out.write(data)
    return str(path)


def damage(path, file, offset=-1, by=1):
    """Change one byte of a file in a checkpoint's directory; from the middle by default."""
    target = os.path.join(path, file)
    with open(target, "r+b") as out:
        data = out.read()
        at = len(data) // 2 if offset < 0 else offset
        out.seek(at)
        out.write(bytes([data[at] ^ by]))


def _files(tensors, ranks, mark=""):
    """The bytes of each rank's file, and DCP's account of all."""
    plain = [f"__{rank}_0.distcp" for rank in range(ranks)]
    written = [_Rank(marked(name, mark) if mark else name) for name in plain]
    described, places = {}, {}
    for key, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            described[key] = BytesStorageMetadata()
            places[MetadataIndex(key)] = written[0].add(key, None, value)
            continue
        rows = -(-len(value) // ranks)
        chunks = []
        for rank, part in enumerate(value.split(rows)):
            at = (rank * rows, *[0] * (value.ndim - 1))
            chunks.append(ChunkStorageMetadata(torch.Size(at), part.shape))
            places[MetadataIndex(key, torch.Size(at))] = written[rank].add(key, at, part.clone())
        described[key] = TensorStorageMetadata(TensorProperties(value.dtype), value.shape, chunks)
    parts = {key: tuple(key.split(".")) for key in tensors}
    files = {rank.file: rank.body + shards.encode(rank.regions) for rank in written}
    return files, Metadata(described, planner_data=parts, storage_data=places)


class _Rank:
    """One rank's file as it grows."""

    def __init__(self, file):
        self.file, self.body, self.regions = file, b"", []

    def add(self, key, at, value):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        data, offset = buffer.getvalue(), len(self.body)
        self.regions.append(shards.Region(key, at, offset, len(data), crc32(data)))
        self.body += data
        return _StorageInfo(self.file, offset, len(data))
