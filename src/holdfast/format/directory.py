"""A checkpoint of several files: what its directory says of itself.

The manifest is a file of its own, ``holdfast.manifest``, with the bytes of any manifest. It has one record for each
other file: its name, its size, and a CRC-32. For a shard (``*.distcp``) that is the one of its table with the footer,
which has those of all that stands before it; for any other file that of all its bytes.
"""

from __future__ import annotations

from typing import Final

from holdfast.format import manifest as form
from holdfast.format.manifest import ManifestError, NewerManifestError
from holdfast.format.shards import SUFFIX as SHARD_SUFFIX
from holdfast.records import MANIFEST_FILE, Facts, Manifest

__all__ = [
    "MANIFEST_FILE",
    "METADATA_FILE",
    "SHARD_SUFFIX",
    "ManifestError",
    "NewerManifestError",
    "decode",
    "decode_beginning",
    "encode",
]

METADATA_FILE: Final = ".metadata"  # DCP's own account of what is where


def encode(manifest: Manifest) -> bytes:
    """Return the bytes of the manifest's file.

    Raises:
        ManifestError: if they would be more than a reader takes, or a record's name is none of a file in a directory.

    """
    _check_names(manifest)
    return form.encode(manifest)


def decode(data: bytes) -> Manifest:
    """Read the whole file.

    Raises:
        ManifestError: if any byte of it is not as it was written, or it names what no directory has.
        NewerManifestError: if a later holdfast wrote it.

    """
    manifest = form.decode(data)
    _check_names(manifest)
    return manifest


def decode_beginning(data: bytes) -> tuple[Facts, int] | None:
    """Read facts and bytes of a checkpoint from the beginning of the file; None if that needs more of it.

    Raises:
        ManifestError: as ``decode``.

    """
    lines = data.split(b"\n", 2)
    if len(lines) < len(("facts", "records", "the rest")):
        return None
    facts, records = form.decode_facts(lines[0] + b"\n"), form.decode_records(lines[1])
    return facts, sum(record.size for record in records)


def _check_names(manifest: Manifest) -> None:
    names = [record.name for record in manifest.records]
    for name in names:
        if not name or "/" in name or "\\" in name or "\0" in name or name in (".", "..", MANIFEST_FILE):
            msg = f"it names {name!r:.80}, which is no file of a checkpoint's directory"
            raise ManifestError(msg)
    if len(set(names)) < len(names):
        msg = "it names a file twice"
        raise ManifestError(msg)
