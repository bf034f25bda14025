"""Copying checkpoints, and whole directories of runs, from anywhere to anywhere. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast import notes
from holdfast.directories import is_plain_directory, is_sealed, is_sharded_at
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, DamagedCheckpointError, LoadError, printable
from holdfast.format.directory import MANIFEST_FILE
from holdfast.format.signature import SUFFIX
from holdfast.front.catalogue import is_directory
from holdfast.front.copying import COPIED, SKIPPED, Advance, Place
from holdfast.front.copying_shards import copy_checkpoint
from holdfast.scanning import look
from holdfast.storage import (
    NO_BLOB,
    Blob,
    Store,
    is_local,
    open_store,
    plain_path,
    real_path,
    same_place,
    split_path,
    use_options,
)
from holdfast.storage.standing import Standing, standing

_DEPTH = 100  # folders below a directory: any number that people nest runs in
_DIFFERENT = "another file of this name is there, and was left: write over it with force=True (--force)"


@dataclass(frozen=True)
class Copied:
    """What a copy has done, each by its path or URL.

    Attributes:
        copied: the files that were written and read back.
        linked: the files that share their bytes with another one at the source, and so at the target where that can
            be.
        skipped: the files that were there already, whole and the same.
        problems: what was not copied, each with the reason.
        size: the bytes of what was copied.

    """

    copied: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    size: int = 0


@dataclass
class _Work:
    """What there is to copy, and what has become of it."""

    source: Store
    target: Store
    force: bool
    advance: Advance
    copied: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    size: int = 0

    def result(self) -> Copied:
        """Return it."""
        done = (tuple(self.copied), tuple(self.linked), tuple(self.skipped))
        return Copied(*done, tuple(self.problems), self.size)


def copy(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Copied:
    """Copy a checkpoint, or everything in a directory, and verify the copy.

    A file with a manifest is checked against it on the way, so that what is damaged is not copied. Every file
    appears at the target whole or not at all; what was written is read back. What is there already, whole and the
    same, is skipped: the same call again goes on where the last one stopped, also within a large file if the
    target is local. A sharded checkpoint is copied as one. Signatures and notes come
    along; files that share their bytes do so at the target, where that can be.

    Args:
        source: a checkpoint or a directory, a local path or fsspec URL.
        target: for a file the new file, or a directory that is there; for a directory the one that is to hold what
            it holds.
        force: write over files that are there and are not the same.
        progress: called with the bytes of each piece done.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Returns what was done. Of a directory one bad file does not keep the others: it is among the ``problems``.

    Raises:
        CheckpointNotFoundError: if there is nothing at the source.
        DamagedCheckpointError: if the one file is damaged.
        ConfigurationError: if the target lies in the source, or the one file would be written over another.
        SaveError: if a copy cannot be written, or does not read back as it was written.

    """
    use_options(storage_options, source, target)
    origin, goal = os.fspath(source), os.fspath(target)
    advance = progress or (lambda _: None)
    root, name = split_path(origin)
    store = open_store(root)
    there = standing(store, name, (SUFFIX,)) if name and not store.is_local else None
    if there is None or there.blob is None:
        if is_directory(origin) or is_plain_directory(store, name):
            return _copy_directory(origin, goal, force=force, advance=advance)
        if there is not None or not store.exists(name):
            msg = f"there is nothing at {printable(origin)}"
            raise CheckpointNotFoundError(msg)
    known = None if there is None else there.blob
    return _copy_file(Place(store, name, known), there, _goal(goal, name), force=force, advance=advance)


def _goal(target: str, name: str) -> Place:
    """Return where one file goes: into a directory under its own name."""
    into = target.endswith("/") or (
        is_local(target) and os.path.isdir(plain_path(target)) and not is_sharded_at(target)
    )
    root, own = (target.rstrip("/"), name) if into else split_path(target)
    return Place(open_store(root), own)


def _copy_file(place: Place, there: Standing | None, goal: Place, *, force: bool, advance: Advance) -> Copied:
    work = _Work(place.store, goal.store, force, advance)
    if same_place(place.store.root, goal.store.root) and place.name == goal.name:
        msg = f"{printable(place.path)} would be copied onto itself"
        raise ConfigurationError(msg)
    how = copy_checkpoint(place, goal, force=force, advance=advance)
    if how not in (COPIED, SKIPPED):
        msg = f"{printable(goal.path)}: {_DIFFERENT}"
        raise ConfigurationError(msg)
    _note(work, how, place, goal)
    signature = Place(place.store, place.name + SUFFIX)
    if signature.name in there.beside if there is not None else signature.store.exists(signature.name):
        _copy_one(work, signature, Place(goal.store, goal.name + SUFFIX))
    facts = look(place.store, place.name, there).facts
    if facts is not None:
        _copy_notes(work, notes.identity(facts), notes.folders_of(place.name, facts))
    return work.result()


def _copy_notes(work: _Work, identity: str, folders: tuple[str, ...]) -> None:
    """Copy what is said of one checkpoint into the target's own folder of notes."""
    for folder in folders if identity else ():
        for blob in work.source.hidden(f"{folder}{notes.FOLDER}/{identity}"):
            if blob.size >= 0:
                _copy_one(work, Place(work.source, blob.name, blob), Place(work.target, blob.name[len(folder) :]))


def _copy_directory(origin: str, goal: str, *, force: bool, advance: Advance) -> Copied:
    source, target = open_store(origin), open_store(goal)
    _check_apart(origin, goal)
    odd: dict[str, str] = {}
    work = _Work(source, target, force, advance)
    free = _Free(target)
    for blob in source.hidden(notes.FOLDER, _DEPTH):  # first: what is pinned is pinned from the first moment
        if blob.size >= 0:
            _copy_one(work, _listed(source, blob), free.place(blob.name))
        else:
            odd[blob.name] = "no file that can be read"
    first: dict[tuple[int, int], str] = {}
    blobs = {blob.name: blob for blob in source.blobs(_DEPTH, odd)}
    for name in _signatures_last([*blobs]):
        same = _shared(source, name)
        known = first.get(same) if same is not None else None
        if known is not None:
            _link(work, known, name)
        elif _copy_one(work, _listed(source, blobs[name]), free.place(name)) and same is not None:
            first[same] = name
    work.problems += [(source.path(name), problem) for name, problem in sorted(odd.items())]
    return work.result()


class _Free:
    """The names that were free at a target when a copy began: a listing, in the place of a look for each."""

    def __init__(self, target: Store) -> None:
        """List it, where a look is a trip over the network."""
        self._target = target
        self._taken = None if target.is_local else {blob.name for blob in _everything(target)}

    def place(self, name: str) -> Place:
        """Return a name there, and whether it was free."""
        free = self._taken is not None and name not in self._taken
        return Place(self._target, name, Blob(name, NO_BLOB) if free else None)


def _everything(store: Store) -> list[Blob]:
    return [*store.blobs(_DEPTH), *store.hidden(notes.FOLDER, _DEPTH)]


def _listed(store: Store, blob: Blob) -> Place:
    """Return a blob with what its listing says of it, where a look is a trip over the network."""
    return Place(store, blob.name, None if store.is_local else blob)


def _signatures_last(names: list[str]) -> Iterator[str]:
    """Yield the names; each signature behind what it is of, also where the alphabet would have it otherwise.

    And what makes a directory a checkpoint behind all that lies in it, where they come one by one.
    """
    seals = [name for name in names if name.endswith(f"/{MANIFEST_FILE}")]
    yield from (name for name in names if not name.endswith((SUFFIX, f"/{MANIFEST_FILE}")))
    yield from seals
    yield from (name for name in names if name.endswith(SUFFIX))


def _shared(store: Store, name: str) -> tuple[int, int] | None:
    """Return what the names of one file, and links to it, share; None where that cannot be known."""
    if not store.is_local:
        return None
    try:
        status = os.stat(_one_file(store, name))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _one_file(store: Store, name: str) -> str:
    """Return the path of a file, or of the one that stands for a sharded checkpoint: its manifest."""
    return store.path(f"{name}/{MANIFEST_FILE}" if is_sealed(store, name) else name)


def _link(work: _Work, known: str, name: str) -> None:
    """Give what was copied its second name; what is there already and is the same stays."""
    goal = Place(work.target, name)
    if goal.store.exists(name) and _same_file(work.target, known, name):
        work.skipped.append(goal.path)
    elif goal.store.exists(name) and not work.force:
        _copy_one(work, Place(work.source, name), goal)
        return
    else:
        work.target.link(known, name)
        work.linked.append(goal.path)
    work.advance(work.source.size(name))


def _same_file(store: Store, one: str, other: str) -> bool:
    return store.is_local and os.path.samefile(_one_file(store, one), _one_file(store, other))


def _copy_one(work: _Work, place: Place, goal: Place) -> bool:
    """Copy one of several files; tell whether the target has it now."""
    try:
        how = copy_checkpoint(place, goal, force=work.force, advance=work.advance)
    except DamagedCheckpointError as error:
        work.problems.append((place.path, f"damaged: {error.record}: {error.problem}"))
        return False
    except (LoadError, ConfigurationError) as error:
        work.problems.append((place.path, str(error)))
        return False
    except OSError as error:
        if error.filename is None or error.filename != place.path:
            raise
        work.problems.append((place.path, error.strerror or str(error)))
        return False
    return _note(work, how, place, goal)


def _note(work: _Work, how: str, place: Place, goal: Place) -> bool:
    if how == COPIED:
        work.copied.append(goal.path)
        known = place.known
        work.size += goal.store.size(goal.name) if known is None or known.bundle else known.size
    elif how == SKIPPED:
        work.skipped.append(goal.path)
    else:
        work.problems.append((goal.path, _DIFFERENT))
    return how in (COPIED, SKIPPED)


def _check_apart(origin: str, goal: str) -> None:
    """See that a directory is not copied onto or into itself.

    Raises:
        ConfigurationError: if that is asked for.

    """
    one, other = (f"{real_path(path).rstrip('/')}/" for path in (origin, goal))
    if same_place(origin, goal) or other.startswith(one):
        msg = f"{printable(goal)} lies in {printable(origin)}, which would be copied into itself: choose another place"
        raise ConfigurationError(msg)
