"""What is wrong in a directory of checkpoints, and what to do. Imports no torch, but to read all bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from holdfast.clock import Clock, SystemClock
from holdfast.front import ailing_files, ailing_place, ailing_runs
from holdfast.front.catalog import catalog
from holdfast.front.finding import NOTE, ORDER, PROBLEM, WARNING, Finding
from holdfast.storage import open_store, use_options

__all__ = ["NOTE", "PROBLEM", "WARNING", "Finding", "doctor"]

_DEPTH = 100  # folders below the given directory: any number that people nest runs in


def doctor(
    path: str | os.PathLike[str],
    *,
    deep: bool = False,
    clock: Clock | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Say what is wrong in a directory of checkpoints, the worst first. Nothing is changed.

    What its filesystem can do is tried with temporary files, which are removed again.

    Args:
        path: a local directory or fsspec URL.
        deep: also read every byte of every checkpoint.
        clock: tells the time now; for tests.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is no such directory.
        OSError: if the directory itself cannot be read.

    """
    use_options(storage_options, path)
    now = (clock or SystemClock()).now()
    store, seen = open_store(os.path.expanduser(os.fspath(path))), catalog(path)
    found = [
        *ailing_files.files(store, seen, _DEPTH),
        *(ailing_files.deep(seen) if deep else ()),
        *ailing_runs.runs(seen, now),
        *ailing_place.place(store, seen),
    ]
    return sorted(dict.fromkeys(found), key=lambda finding: (ORDER[finding.severity], finding.path, finding.kind))
