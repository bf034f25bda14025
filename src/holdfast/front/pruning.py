"""Removing by hand what the rules do not keep: planned while nobody may save, looked at once more, then gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from holdfast.clock import SystemClock
from holdfast.errors import DirectoryInUseError
from holdfast.format.signature import SUFFIX
from holdfast.front.catalog import Catalog, catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.noting import let_go
from holdfast.policy.notation import parse_rules
from holdfast.policy.retention import Decision
from holdfast.policy.terms import Term
from holdfast.records import RANKED
from holdfast.scanning import look
from holdfast.storage import Store, is_local, is_own_place, open_store, own_place, real_path, split_path, use_options
from holdfast.storage.standing import Standing, discard, standing


@dataclass(frozen=True)
class Pruned:
    """What was decided about one checkpoint, and what became of it.

    Attributes:
        name: relative to the directory.
        path: the file.
        size: its bytes.
        keep: whether it is kept by the plan.
        reason: why, or why not.
        rules: the notations of the rules that keep it; ``"floor: ..."`` for what is kept whatever they say.
        file_id: the same for two names that share their bytes; "" where that cannot be told.
        rank: its place in the ranking, from 1; None if it is not ranked.
        removed: whether it is gone.
        spared: why a checkpoint that the plan drops is still there, or "".

    """

    name: str
    path: str
    size: int
    keep: bool
    reason: str
    rules: tuple[str, ...] = ()
    file_id: str = ""
    rank: int | None = None
    removed: bool = False
    spared: str = ""


def prune(  # noqa: PLR0913 - what is there, how it is pruned, and how it is reached
    path: str | os.PathLike[str],
    keep: object = None,
    *,
    dry_run: bool = True,
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Pruned]:
    """Remove the checkpoints that the rules do not keep, below a directory of one or many runs.

    The newest of each run, the best, the one that it resumed from and what is pinned stay whatever the rules say; so
    does what the rules are not about: ``last``, the files of exceptions and signals, what was saved, renamed or
    copied by hand, and files without a manifest. Each file is looked at once more just before it goes: one that is
    no longer what the plan saw, or was pinned meanwhile, stays.

    Args:
        path: a directory or fsspec URL.
        keep: rules, such as ``Latest(3) | Best(2, "val_loss")``; None for those that each run has recorded.
        dry_run: only say what would be done.
        now: the time that the rules go by; that of the system's clock by default.
        progress: called with the bytes of each file that is removed or spared.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Returns:
        one for each checkpoint, in the order of the catalog: newest first.

    Raises:
        CheckpointNotFoundError: if there is no such directory.
        ConfigurationError: if ``keep`` is not made of rules.
        DirectoryInUseError: if a run that is alive saves to one of the directories; nothing was removed then.

    """
    use_options(storage_options, path)
    given = SystemClock().now() if now is None else now
    plan = _planned(catalog(path), keep, given)
    if dry_run or all(item.keep for item, _ in plan):
        return [item for item, _ in plan]
    with ExitStack() as owned:
        for folder in sorted({_run_folder(checkpoint) for item, checkpoint in plan if not item.keep}):
            _own(owned, folder, given)
        # What a run that has just ended has committed, and what was pinned meanwhile, counts.
        return prune_listed(catalog(path), keep, given, progress=progress)


def prune_listed(  # noqa: PLR0913 - what is there, and how it is to be pruned
    listed: Catalog,
    keep: object,
    now: datetime,
    *,
    resumed: Collection[str] = (),
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    run: str = "",
) -> list[Pruned]:
    """Remove of these checkpoints what the rules do not keep, as ``prune`` does, for one to whom the place belongs.

    Args:
        listed: what is there.
        keep: rules; None for those that each run has recorded.
        now: the time that they go by.
        resumed: names of checkpoints that runs resumed from, besides those that the manifests tell of.
        dry_run: only say what would be done.
        progress: called with the bytes of each file that is removed or spared.
        run: the one whose checkpoints may go; "": those of all.

    Returns one for each checkpoint of those runs.

    Raises:
        ConfigurationError: if ``keep`` is not made of rules.

    """
    tell = progress or (lambda _: None)
    plan = [pair for pair in _planned(listed, keep, now, resumed) if run in ("", pair[1].run)]
    return [item if item.keep or dry_run else remove_planned(item, checkpoint, tell) for item, checkpoint in plan]


def freed(pruned: Sequence[Pruned]) -> int:
    """Return the bytes on disk that are free when all goes that the plan drops: names that share bytes count once."""
    staying = {item.file_id for item in pruned if (item.keep or item.spared) and item.file_id}
    going = {item.file_id or item.path: item.size for item in pruned if not (item.keep or item.spared)}
    return sum(size for key, size in going.items() if key not in staying)


def read_rules(text: str) -> tuple[Term, ...]:
    """Return the rules that a text says, such as ``"Latest(3) | Best(2, 'val_loss')"``; ``"[]"`` are none.

    Raises:
        ConfigurationError: naming the part that is not understood.

    """
    return parse_rules(text)


def resumed_from(listed: Sequence[Checkpoint]) -> set[str]:
    """Return the names of those checkpoints that runs of this catalog resumed from, the last time that they did.

    Also where the directory was moved since: then by the run, the step and the name of the file.
    """
    newest: dict[tuple[str, str, str], Checkpoint] = {}
    for checkpoint in listed:
        key = (checkpoint.run, checkpoint.owner, _run_folder(checkpoint))
        if checkpoint.facts is not None and (key not in newest or checkpoint.sequence > newest[key].sequence):
            newest[key] = checkpoint
    origins = {item.facts.resumed_from for item in newest.values() if item.facts is not None} - {None}
    places = {real_path(origin.path) for origin in origins if origin is not None and is_local(origin.path)}
    paths = {origin.path for origin in origins if origin is not None}
    known = {(origin.run, origin.step, split_path(origin.path)[1]) for origin in origins if origin is not None}
    return {
        item.name
        for item in listed
        if item.path in paths
        or (is_local(item.path) and real_path(item.path) in places)
        or not known.isdisjoint((run, item.step, split_path(item.path)[1]) for run in (item.run, None))
    }


def _planned(
    listed: Catalog, keep: object, now: datetime, resumed: Collection[str] = ()
) -> list[tuple[Pruned, Checkpoint]]:
    decisions = listed.plan(keep, now, resumed_from={*resumed_from(listed), *resumed})
    return [(_of(decision, item), item) for decision, item in zip(decisions, listed, strict=True)]


def _of(decision: Decision, item: Checkpoint) -> Pruned:
    """Return a decision about a file. What is not ranked is never ours to remove, whatever was decided."""
    ours = item.role == RANKED and item.facts is not None
    return Pruned(
        item.name,
        item.path,
        item.size,
        keep=decision.keep or not ours,
        reason=decision.reason,
        rules=decision.rules,
        file_id=item.file_id,
        rank=decision.rank,
    )


def _run_folder(checkpoint: Checkpoint) -> str:
    """Return the directory of a checkpoint's run, whose lock a run that is alive holds."""
    facts = checkpoint.facts
    name = facts.names.get(RANKED, "") if facts is not None else ""
    path = checkpoint.path
    if not (name and path.endswith(f"/{name}")):
        return split_path(path)[0]
    folder = path[: -len(name)]
    return folder if folder == "/" or folder.endswith("//") else folder[:-1]


def _own(owned: ExitStack, folder: str, now: datetime) -> None:
    """Take a directory until the end of the stack.

    Raises:
        DirectoryInUseError: if a run has it, be it one of this process.

    """
    store = open_store(folder)
    if is_own_place(store):
        raise DirectoryInUseError(folder, pid=str(os.getpid()))
    ownership = own_place(store, run="", since=now.astimezone(timezone.utc).isoformat(timespec="seconds"))
    if ownership is not None:
        owned.callback(ownership.give_up)


class _ChangedError(Exception):
    """The file is no longer the one that was planned for."""


def _remove(store: Store, checkpoint: Checkpoint, there: Standing | None, name: str) -> None:
    """Remove a file and its signature, if it still is the one that was planned for: by its stamp, or what it says."""
    blob = there.blob if there is not None else None
    if blob is None or not blob.stamp or blob.stamp != checkpoint.stamp:
        now = look(store, name, there)
        # By their texts: a metric that is NaN is not equal to itself.
        if repr(now.facts) != repr(checkpoint.facts) or now.size != checkpoint.size:
            raise _ChangedError
    discard(store, name, (SUFFIX,), there)


def remove_planned(item: Pruned, checkpoint: Checkpoint, tell: Callable[[int], None]) -> Pruned:
    """Remove one file, unless it is no longer what was planned for or has been pinned; then its signature and notes.

    For one to whom the place belongs. Returns what became of it.
    """
    tell(item.size)
    facts = checkpoint.facts
    folder = _run_folder(checkpoint)
    store, name = open_store(folder), item.path[len(folder) :].lstrip("/")
    if facts is None:
        return replace(item, spared="it has no manifest")

    try:
        there = None if store.is_local else standing(store, name, (SUFFIX,))
        gone = let_go(store, name, facts, partial(_remove, store, checkpoint, there))
    except _ChangedError:
        return replace(item, spared="it is not the file that was planned for: it was written or removed meanwhile")
    except OSError as error:
        if store.exists(name):
            return replace(item, spared=f"it could not be removed: {error.strerror or error}")
        return replace(item, removed=True)  # what stayed is its signature or its notes: the next run sweeps them
    return (
        replace(item, removed=True)
        if gone
        else replace(item, spared="it was pinned, or something is said of it, just now")
    )
