"""Where a sharded checkpoint lies, and what it holds."""

from __future__ import annotations

import os
import pathlib

SHARD = "__1_0.distcp"


def folder(path):
    return os.path.dirname(path)


def bytes_of(path):
    """All files below a directory."""
    return {str(file.relative_to(path)): file.read_bytes() for file in pathlib.Path(path).rglob("*") if file.is_file()}
