"""Saving one file, and reading who it belongs to, for the integrations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from holdfast.clock import Clock, SystemClock
from holdfast.engine import write_checkpoint
from holdfast.engine.commit import save_errors
from holdfast.engine.globals import globals_of
from holdfast.front.provenance import git_commit, versions
from holdfast.records import Facts, Manifest
from holdfast.storage import Store, open_store, split_path

__all__ = ["globals_of", "is_written", "link", "plain_facts", "remove_path", "save_path", "stamp", "sweep"]


def save_path(path: str | os.PathLike[str], state: object, facts: Facts) -> Manifest:
    """Commit a state at a path or URL.

    Raises:
        SaveError: naming the path and the cause; nothing has changed then.

    """
    root, name = split_path(path)
    return write_checkpoint(open_store(root), name, state, facts)


def link(store: Store, source: str, target: str) -> str:
    """Give a committed checkpoint a second name, sharing the bytes where the store can.

    Raises:
        SaveError: naming the path and the cause.

    """
    with save_errors(store.path(target)):
        return store.link(source, target)


def remove_path(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint: a file, a directory of shards, or a blob. One that is gone is no error."""
    root, name = split_path(path)
    store = open_store(root)
    if store.is_local and os.path.isdir(store.path(name)):
        shutil.rmtree(store.path(name))
    else:
        store.remove(name)


Stamp = tuple[int, ...] | None


def stamp(store: Store, name: str) -> Stamp:
    """Return something that changes when a local file is written anew; None where there is none."""
    if not store.is_local:
        return None
    try:
        status = os.stat(store.path(name))
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def is_written(store: Store, name: str, before: Stamp) -> bool:
    """Tell whether a file has been written since its stamp was taken; of a remote one, whether it is there."""
    if not store.is_local:
        return store.exists(name)
    return stamp(store, name) not in (None, before)


def sweep(folder: str) -> list[str]:
    """Remove what saves that died have left in a folder or below a URL; return the names."""
    return open_store(folder or os.curdir).sweep()


def plain_facts(state: Mapping[str, Any], *, reason: str, kind: str, clock: Clock | None = None) -> Facts:
    """Return what can be said of a state that is saved without any policy behind it."""
    return Facts(
        step=_count(state.get("global_step")),
        epoch=_count(state.get("epoch")),
        time=(clock or SystemClock()).now().isoformat(timespec="milliseconds"),
        reason=reason,
        kind=kind,
        weights_only="optimizer_states" not in state,
        git_commit=git_commit(),
        versions=versions(),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
