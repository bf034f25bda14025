"""Saving and checking directories of shards, for the integrations. Every function is called on every rank."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.engine import Order, ShardedSaver, write_sharded
from holdfast.front.opening import verify
from holdfast.front.saving import Behind
from holdfast.front.words import ranks_here
from holdfast.records import MANIFEST_FILE, Facts, Manifest
from holdfast.storage import open_store, split_path

__all__ = ["ShardedSaver", "Shares", "begin_shards", "check_shards", "is_committed", "save_shards", "shards_saver"]


@dataclass(frozen=True)
class Shares:
    """What a rank gives to a directory of shards.

    Attributes:
        state: its part of the nested state.
        extra: whole further files by name; rank 0's alone.

    """

    state: Mapping[str, Any]
    extra: Mapping[str, bytes]


def shards_saver(images: int) -> ShardedSaver:
    """Return what saves shards behind the training, on every rank."""
    return ShardedSaver(ranks_here(), images)


def begin_shards(saver: ShardedSaver, shares: Shares, facts: Facts, behind: Behind) -> Any:
    """Take this rank's part; the whole is committed behind the training's back. Return the flight.

    Raises:
        SaveError: on every rank, if any rank's part cannot be taken.

    """
    order = Order(behind.store, behind.name, shares.state, facts, behind.also, stats=behind.stats)
    return saver.submit(order, shares.extra)


def save_shards(path: str | os.PathLike[str], shares: Shares, facts: Facts) -> Manifest:
    """Commit the parts of all ranks at a path.

    Raises:
        SaveError: on every rank, naming the path, the rank and the cause; nothing has changed then.

    """
    root, name = split_path(path)
    return write_sharded(ranks_here(), Order(open_store(root), name, shares.state, facts), shares.extra)


def is_committed(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a directory of shards at a path that holdfast has committed."""
    return os.path.isfile(os.path.join(os.fspath(path), MANIFEST_FILE))


def check_shards(path: str | os.PathLike[str]) -> None:
    """Read every byte of a checkpoint before any rank loads it.

    Raises:
        DamagedCheckpointError: on every rank, naming the file and the tensor.

    """
    ranks_here().agree(lambda: verify(path), at="verifying a checkpoint")
