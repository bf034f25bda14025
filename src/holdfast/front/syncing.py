"""Bringing all checkpoints of a directory to another one, as often as one likes. Imports no torch."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from holdfast.clock import SystemClock
from holdfast.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    DamagedCheckpointError,
    LoadError,
    printable,
)
from holdfast.front.catalog import Catalog
from holdfast.front.mirror_keeping import kept_there, prune_there
from holdfast.mirroring import GONE, LINKED, SKIPPED, Carrier, OccupiedError
from holdfast.mirroring.sending import way_to
from holdfast.storage import Store, is_local, open_store, own_place, real_path, same_place, use_options


@dataclass(frozen=True)
class Synced:
    """What a sync has done, each by its name.

    Attributes:
        copied: the checkpoints that were brought to the target and committed there.
        linked: those whose bytes the target had under another name.
        skipped: those that it had.
        left_out: those that the rules would not keep there.
        removed: those that the rules no longer keep there.
        problems: what was not brought there, or not removed, each with the reason.
        size: the bytes of what was copied.

    """

    copied: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    size: int = 0


@dataclass
class _Work:
    copied: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0

    def result(self) -> Synced:
        return Synced(
            tuple(self.copied),
            tuple(self.linked),
            tuple(self.skipped),
            tuple(self.left_out),
            tuple(self.removed),
            tuple(self.problems),
            self.size,
        )


def sync(  # noqa: PLR0913 - what may be asked of it
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    keep: object = None,
    bandwidth: float | None = None,
    workers: int = 4,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Synced:
    """Bring all checkpoints of a directory to another one: what is there already, whatever its name, is not sent again.

    Each is checked against its manifest on the way, and committed there as a whole; what is said of it and its
    signature come along. A large one whose upload was cut off, by a kill as well, goes on with the parts that the
    server has. The directory may be that of a run that is alive; the target may not. The newest come first.

    Args:
        source: a directory or fsspec URL.
        target: another one.
        keep: rules for the target, such as ``Latest(3) | Best(2, "val_loss")``: what they would not keep there is not
            brought there, and what they no longer keep there is removed, once all is there. Never the newest, the best,
            the one that a run resumed from, and what is pinned. None removes nothing.
        bandwidth: bytes per second; None for as fast as it goes.
        workers: parts of a file that are under way, and in memory, at a time.
        force: write over checkpoints of the same name that are of another run, or newer.
        dry_run: only say what would be done.
        progress: called with the bytes of each piece that is there, be it since long: in all those of the source.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is no such directory.
        ConfigurationError: if the target is the source or lies in it, or an argument is wrong.
        DirectoryInUseError: if a run that is alive has the target, or another sync.
        OSError: if the target does not answer.

    """
    origin, goal = os.fspath(source), os.fspath(target)
    use_options(storage_options, origin, goal)
    _check(origin, goal, bandwidth, workers)
    here, there = open_store(origin), open_store(goal)
    listed = Catalog(origin, here)
    if not listed and not (here.is_local and os.path.isdir(here.root)):
        msg = f"there is no directory {printable(origin)}"
        raise CheckpointNotFoundError(msg)
    work, tell = _Work(), progress or (lambda _: None)
    way = way_to(there, here, bandwidth=bandwidth, workers=workers, progress=tell)
    carrier = Carrier(here, way, force=force, dry_run=dry_run)
    with _owned(there, dry_run=dry_run):
        wanted = None if keep is None else kept_there(listed, there, keep)
        _carry_all(work, carrier, listed, wanted, tell)
        if keep is not None:
            _forget_there(work, there, keep, dry_run=dry_run)
            carrier.known.gone(() if dry_run else work.removed)
    return work.result()


@contextmanager
def _owned(there: Store, *, dry_run: bool) -> Iterator[None]:
    """Have the target to ourselves: of two that bring checkpoints there each would remove what the other is to keep.

    Raises:
        DirectoryInUseError: if a run that is alive saves or mirrors there, or another sync.

    """
    since = SystemClock().now().isoformat(timespec="seconds")
    owner = None if dry_run else own_place(there, run="", since=since)
    try:
        yield
    finally:
        if owner is not None:
            owner.give_up()


def _carry_all(
    work: _Work, carrier: Carrier, listed: Catalog, wanted: Collection[str] | None, tell: Callable[[int], None]
) -> None:
    """Bring those there that are wanted; None: all."""
    try:
        carrier.tidy()
        for checkpoint in listed:
            if checkpoint.problem:
                work.problems.append((checkpoint.name, checkpoint.problem))
            elif wanted is not None and checkpoint.name not in wanted:
                work.left_out.append(checkpoint.name)
            else:
                tell(_carry(work, carrier, checkpoint.name))
    finally:
        carrier.close()


def _forget_there(work: _Work, there: Store, keep: object, *, dry_run: bool) -> None:
    for item in prune_there(there, keep, dry_run=dry_run):
        if item.spared:
            work.problems.append((item.name, item.spared))
        elif item.removed or dry_run:
            work.removed.append(item.name)


def _carry(work: _Work, carrier: Carrier, name: str) -> int:
    """Bring one there; return how many of its bytes were there and not sent."""
    try:
        carried = carrier.carry(name)
    except DamagedCheckpointError as error:
        work.problems.append((name, f"damaged: {error.record}: {error.problem}"))
    except (LoadError, OccupiedError, ConfigurationError) as error:
        work.problems.append((name, str(error)))
    except OSError as error:  # an upload that the server has forgotten, a kind that the target does not take
        if not isinstance(error, FileNotFoundError) and error.errno != errno.ENOTSUP:
            raise
        work.problems.append((name, error.strerror or str(error)))
    else:
        if carried.how == LINKED:
            work.linked.append(name)
        elif carried.how == SKIPPED:
            work.skipped.append(name)
        elif carried.how != GONE:
            work.copied.append(name)
            work.size += carried.size
            return 0
        return carried.size
    return 0


def _check(origin: str, goal: str, bandwidth: float | None, workers: int) -> None:
    if bandwidth is not None and not bandwidth > 0:
        msg = f"bandwidth is a number of bytes per second, or None, but got {bandwidth!r}"
        raise ConfigurationError(msg)
    if not isinstance(workers, int) or workers < 1:
        msg = f"workers is a number of parts, at least 1, but got {workers!r}"
        raise ConfigurationError(msg)
    one, other = (f"{(real_path(path) if is_local(path) else path).rstrip('/')}/" for path in (origin, goal))
    if same_place(origin, goal) or other.startswith(one) or one.startswith(other):
        msg = f"{printable(goal)} and {printable(origin)} are not two places apart: choose another target"
        raise ConfigurationError(msg)
