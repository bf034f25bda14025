"""Small checkpoints on disk, and their bytes."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib

import torch

from holdfast.engine import write_checkpoint
from holdfast.format.layout import Placed, central_directory, data_descriptor, local_header, place
from holdfast.format.manifest import MANIFEST_NAME
from holdfast.records import Facts, Record
from holdfast.storage import open_store, split_path


def save(path, state=None, **facts):
    """Commit a checkpoint as the library does; return its path."""
    root, name = split_path(path)
    facts.setdefault("names", {"ranked": name})
    facts.setdefault("run", "aaaa")
    facts.setdefault("time", "2026-01-02T03:04:05.678+00:00")
    write_checkpoint(open_store(root), name, small_state() if state is None else state, Facts(**facts))
    return str(path)


def small_state(seed=0):
    """A tiny model with an optimizer's moments."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(3, 4, generator=generator)
    moments = {0: {"step": torch.tensor(2.0), "exp_avg": torch.rand(3, 4, generator=generator)}}
    return {
        "epoch": 1,
        "global_step": 2,
        "state_dict": {"weight": weight, "bias": torch.rand(3, generator=generator)},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]}],
    }


def content(path):
    """All bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def put(path, data):
    """Write bytes as they are."""
    with open(path, "wb") as file:
        file.write(data)
    return str(path)


def torch_bytes(state, **options):
    """What ``torch.save`` makes of a state."""
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def offsets(data):
    """Where the local header of each record stands, by its name without the archive's."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename.partition("/")[2]: info.header_offset for info in archive.infolist()}


def records(data):
    """The records of a checkpoint's bytes, without the manifest, as (name, data)."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = [(info.filename.partition("/")[2], archive.read(info)) for info in archive.infolist()]
    return [(name, data) for name, data in found if name != MANIFEST_NAME]


def assemble(parts, *, directory_offset=None):
    """Build a file from named records as our writer frames them, checksums right, contents as given.

    Args:
        parts: names and bytes.
        directory_offset: what the directory says of the manifest's place, if not the truth.

    """
    out = b""
    for name, data in parts:
        record = Record(name, len(data), zlib.crc32(data))
        out += local_header(name, len(data), len(out)) + data + data_descriptor(record, len(out))
    placed = place([Record(name, len(data), zlib.crc32(data)) for name, data in parts])
    if directory_offset is not None:
        placed = [
            Placed(item.record, directory_offset) if item.record.name == MANIFEST_NAME else item for item in placed
        ]
        return out + _shifted_end(placed, len(out))
    return out + central_directory(placed)


def _shifted_end(placed, start):
    """The central directory of entries that lie, with an end that tells the truth about it."""
    data = bytearray(central_directory(placed))
    end = len(data) - 98
    data[end + 48 : end + 56] = start.to_bytes(8, "little")
    return bytes(data)


def line(value):
    """One line of a manifest with a true checksum: of a value, or of JSON text as bytes."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def with_manifest(path, manifest, base=None):
    """Write a whole checkpoint whose manifest is these bytes."""
    parts = records(content(base) if base is not None else torch_bytes(small_state()))
    return put(path, assemble([*parts, (MANIFEST_NAME, manifest)]))


def listing(folder):
    """Every file in a folder, sorted."""
    return sorted(os.listdir(folder))
