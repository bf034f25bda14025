"""Saving one file, and reading who it belongs to, for the integrations."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.clock import Clock, SystemClock
from holdfast.directories import is_sealed
from holdfast.engine import Order, Saver, SaveStats, lease, quiesce, release, write_checkpoint
from holdfast.engine.commit import save_errors
from holdfast.engine.flight import Flight
from holdfast.engine.globals import globals_of, permitting
from holdfast.errors import SaveError
from holdfast.format.signature import SUFFIX
from holdfast.front.provenance import git_commit, versions
from holdfast.front.save_mode import SaveMode
from holdfast.records import Facts, Manifest
from holdfast.snapshot import stepped, stepped_tensors, weigh
from holdfast.storage import Store, open_store, split_path
from holdfast.storage.standing import discard
from holdfast.telling import warn

__all__ = [
    "Behind",
    "Flight",
    "SaveStats",
    "Saver",
    "begin",
    "globals_of",
    "is_written",
    "lease",
    "link",
    "permitting",
    "plain_facts",
    "quiesce",
    "raise_first",
    "release",
    "remove_path",
    "remove_signature",
    "save_path",
    "sweep",
    "warm",
    "weigh",
]

_WORTH_WARMING = 1 << 25  # bytes of state below which cold memory costs nothing that is felt


@dataclass(frozen=True)
class Behind:
    """How a file is written behind the training's back.

    Attributes:
        store, name, also, over: as of an ``Order``.
        mode: how saves are carried out.
        model, optimizers: what is trained.
        stats: where to count it.
        consent, after: as of an ``Order``.

    """

    store: Store
    name: str
    also: str
    over: str
    mode: SaveMode
    model: object
    optimizers: Sequence[object]
    stats: SaveStats
    consent: Callable[[], None] | None
    after: Callable[[], None] | None = None

    def house(self, saver: Saver) -> None:
        """Before the state is collected: have tensors live in the image, if that is asked for."""
        if self.mode.zero_copy:
            saver.house(stepped_tensors(self.model, self.optimizers), self.stats)


def begin(saver: Saver, state: object, facts: Facts, behind: Behind) -> Flight:
    """Take a state; it is committed behind the training's back.

    Raises:
        SaveError: if the state cannot be taken.

    """
    steps = stepped(behind.model, behind.optimizers) if behind.mode.reads_on else {}
    names = (behind.store, behind.name, state, facts, behind.also, behind.over)
    told = (behind.consent, behind.after)
    return saver.submit(Order(*names, steps, id(behind.model), behind.mode.zero_copy, behind.stats, *told))


def raise_first(errors: Sequence[SaveError]) -> None:
    """Raise the first of them, if there is any; warn of the others."""
    for error in errors[1:]:
        warn(str(error))
    if errors:
        raise errors[0]


def warm(lease_saver: Callable[[], Saver], model: object, optimizers: Iterable[object]) -> None:
    """Have the memory for a large state ready before the first save is due."""
    size = weigh(model, optimizers)
    if size >= _WORTH_WARMING:
        lease_saver().warm(size + size // 100)


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
    """Remove a checkpoint: a file, a directory of shards, or a blob. One that is gone is no error.

    Of a symbolic link only the link: what it leads to may be anybody's.
    """
    root, name = split_path(path)
    store = open_store(root)
    directory = store.is_local and os.path.isdir(store.path(name)) and not os.path.islink(store.path(name))
    if directory and not is_sealed(store, name):
        shutil.rmtree(store.path(name))
        remove_signature(store, name)
    else:
        discard(store, name, (SUFFIX,))


def remove_signature(store: Store, name: str) -> None:
    """Remove the signature of a checkpoint that is gone; most have none."""
    store.remove(name + SUFFIX)


Stamp = tuple[int, ...] | None


def is_written(store: Store, name: str, before: Stamp) -> bool:
    """Tell whether a file has been written since its stamp was taken; of a remote one, whether it is there."""
    if not store.is_local:
        return store.exists(name)
    return store.stamp(name) not in (None, before)


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
