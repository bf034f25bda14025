"""Checkpoints with true checksums around what their maker should not have written."""

from __future__ import annotations

import zlib

from holdfast.format.manifest import MANIFEST_NAME
from tests.support.files import assemble, line, put, records, small_state, torch_bytes

GOOD = {"holdfast": 1, "step": 1, "epoch": 0, "sequence": 1, "run": "r", "time": "t", "metrics": {}, "names": {}}


def listed(parts):
    """The manifest's second line of these records."""
    return line([[name, len(data), f"{zlib.crc32(data):08x}"] for name, data in parts])


def own_records():
    return listed(records(torch_bytes(small_state())))


def with_pickle(path, data, *, foreign=False):
    """Write a checkpoint, ours with true checksums or torch's, whose skeleton is this pickle."""
    parts = [(name, data if name == "data.pkl" else part) for name, part in records(torch_bytes(small_state()))]
    return put(path, assemble(parts if foreign else [*parts, (MANIFEST_NAME, line(GOOD) + listed(parts) + line([]))]))
