"""Saving and checking directories of shards, for the integrations. Every function is called on every rank."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from holdfast.directories import is_sealed, is_sharded_at
from holdfast.engine import Order, ShardedSaver, write_sharded
from holdfast.engine.shard_sharing import lease_shards, release_shards
from holdfast.engine.sharded.reading import check_values
from holdfast.front.moving import copy
from holdfast.front.opening import verify
from holdfast.front.saving import Behind
from holdfast.front.words import ranks_here
from holdfast.records import MANIFEST_FILE, Facts, Manifest
from holdfast.snapshot import stepped
from holdfast.storage import is_local, open_store, split_path

__all__ = [
    "ShardedSaver",
    "Shares",
    "asked_for",
    "begin_shards",
    "brought",
    "check_shards",
    "is_committed",
    "release_shards",
    "save_shards",
    "shards_saver",
    "to_ask_for",
]


@dataclass(frozen=True)
class Shares:
    """What a rank gives to a directory of shards.

    Attributes:
        state: its part of the nested state.
        extra: whole further files by name; rank 0's alone.

    """

    state: Mapping[str, Any]
    extra: Mapping[str, bytes]


def shards_saver(user: object, images: int) -> ShardedSaver:
    """Return what saves shards behind the training, on every rank; for all users the same. See ``release_shards``."""
    return lease_shards(user, ranks_here(), images)


def begin_shards(saver: ShardedSaver, shares: Shares, facts: Facts, behind: Behind) -> Any:
    """Take this rank's part; the whole is committed behind the training's back. Return the flight.

    Raises:
        SaveError: on every rank, if any rank's part cannot be taken.

    """
    steps = stepped(behind.model, behind.optimizers) if behind.mode.overlap else {}
    order = Order(
        behind.store,
        behind.name,
        shares.state,
        facts,
        behind.also,
        stepped=steps,
        subject=id(behind.model),
        stats=behind.stats,
        consent=behind.consent,
        after=behind.after,
    )
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
    root, name = split_path(path)
    return bool(name) and is_sealed(open_store(root), name)


def to_ask_for(path: str) -> str:
    """Return the path under which a Trainer may be told of a checkpoint: of a directory at a URL, its manifest.

    Lightning asks when it was written last, and object stores do not say that of directories.
    """
    return f"{path}/{MANIFEST_FILE}" if not is_local(path) and is_committed(path) else path


def asked_for(path: str) -> str:
    """Return the checkpoint that a Trainer was told of."""
    return path if is_local(path) else path.removesuffix(f"/{MANIFEST_FILE}")


@contextmanager
def brought(path: str, local_rank: int) -> Iterator[str]:
    """Have a checkpoint at a URL on this machine while the ranks load it: the first rank of each copies it, verified.

    Takes room for it in the folder for temporary files (``TMPDIR``). Called on every rank.

    Raises:
        LoadError, SaveError: if it cannot be read, is damaged, or there is no room for it; on every rank.

    """
    ranks, name = ranks_here(), split_path(path)[1]
    token = ranks.agree(lambda: secrets.token_hex(8), at="load_checkpoint")
    folder = os.path.join(tempfile.gettempdir(), f"holdfast-{token}")
    try:
        if local_rank == 0:
            ranks.together(lambda: _fetch(path, folder, name), at="load_checkpoint")
        else:
            ranks.together(lambda: None, at="load_checkpoint")
        yield os.path.join(folder, name)
        ranks.together(lambda: None, at="load_checkpoint")
    finally:
        if local_rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _fetch(path: str, folder: str, name: str) -> None:
    os.mkdir(folder, 0o700)
    copy(path, os.path.join(folder, name))


def _exists(path: str | os.PathLike[str]) -> bool:
    root, name = split_path(path)
    return open_store(root).exists(name)


def check_shards(path: str | os.PathLike[str], allow: Sequence[Any] | None, *, deep: bool) -> None:
    """Look at a checkpoint, a file or a directory, before any rank loads it by torch's own means.

    Args:
        path: where it is.
        allow: the classes that values in a directory may need; None: any code may run.
        deep: read every byte, of what has checksums.

    Raises:
        DamagedCheckpointError: on every rank, naming the file and the tensor.
        UnsafeCheckpointError: on every rank, if it needs classes that are not allowed.

    """

    def check() -> None:  # on rank 0: what the ranks do here must not hang on what each of them sees
        sharded = is_sharded_at(path)
        if deep and (is_committed(path) if sharded else not os.path.isdir(path) and _exists(path)):
            verify(path)
        if allow is not None and sharded:
            check_values(path, allow)

    ranks_here().agree(check, at="verifying a checkpoint")
