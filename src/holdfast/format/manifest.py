"""The manifest as bytes: three lines, each a CRC-32 in hexadecimal, a space, and a JSON value.

The first line holds the facts, so that a listing can read it without the rest; the second the
records, the third the tensors. Numbers that JSON lacks stand as the strings ``nan``, ``inf``, ``-inf``.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from holdfast.records import FORMAT_VERSION, Facts, Lineage, Manifest, Record, TensorInfo

MANIFEST_NAME = "holdfast/manifest"


class ManifestError(ValueError):
    """The bytes are no manifest, or not the one that was written."""


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's bytes."""
    facts = {key: _plain(value) for key, value in asdict(manifest.facts).items()}
    lines = (
        {"holdfast": manifest.format, **facts},
        [[record.name, record.size, f"{record.crc32:08x}"] for record in manifest.records],
        [[tensor.name, tensor.dtype, list(tensor.shape), tensor.record] for tensor in manifest.tensors],
    )
    return b"".join(_line(line) for line in lines)


def decode(data: bytes) -> Manifest:
    """Read a whole manifest.

    Raises:
        ManifestError: if any byte of it is not as it was written.

    """
    lines = data.split(b"\n")
    if len(lines) != len(("facts", "records", "tensors", "the end")) or lines[-1]:
        msg = "it does not have three lines"
        raise ManifestError(msg)
    head, records, tensors = (_value(line) for line in lines[:3])
    try:
        return Manifest(
            facts=_facts(head),
            records=tuple(Record(str(name), int(size), int(crc, 16)) for name, size, crc in records),
            tensors=tuple(
                TensorInfo(str(name), str(dtype), tuple(map(int, shape)), str(record))
                for name, dtype, shape, record in tensors
            ),
            format=head["holdfast"],
        )
    except (TypeError, ValueError, KeyError) as error:
        msg = f"its content does not have the form of a manifest: {error!r}"
        raise ManifestError(msg) from error


def decode_facts(data: bytes) -> Facts:
    """Read the facts from the beginning of a manifest; the rest need not be there.

    Raises:
        ManifestError: if the first line is not whole.

    """
    line, newline, _ = data.partition(b"\n")
    if not newline:
        msg = "its first line is cut off"
        raise ManifestError(msg)
    try:
        return _facts(_value(line))
    except (TypeError, ValueError, KeyError) as error:
        msg = f"its first line does not have the form of a manifest: {error}"
        raise ManifestError(msg) from error


def _facts(head: Any) -> Facts:
    if head["holdfast"] > FORMAT_VERSION:
        msg = f"format {head['holdfast']} is newer than this holdfast reads ({FORMAT_VERSION})"
        raise ManifestError(msg)
    known = {item.name for item in fields(Facts)}
    values = {key: value for key, value in head.items() if key in known}
    values["metrics"] = {str(key): float(value) for key, value in values.get("metrics", {}).items()}
    for key in ("step", "epoch", "sequence"):
        values[key] = int(values[key])
    if values.get("resumed_from") is not None:
        values["resumed_from"] = Lineage(**values["resumed_from"])
    return Facts(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _line(value: Any) -> bytes:
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def _value(line: bytes) -> Any:
    digest, _, text = line.partition(b" ")
    if digest != f"{zlib.crc32(text):08x}".encode():
        msg = "its checksum does not match"
        raise ManifestError(msg)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON: {error}"
        raise ManifestError(msg) from error
