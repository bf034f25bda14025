"""What is wrong with the files of a directory: torn, foreign, left over, orphaned, damaged or not to be read."""

from __future__ import annotations

import os
from collections.abc import Iterator

from holdfast import notes
from holdfast.errors import DamagedCheckpointError, LoadError
from holdfast.format import reading
from holdfast.format.signature import SUFFIX
from holdfast.front.catalog import Catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.finding import NOTE, PROBLEM, WARNING, Finding
from holdfast.source import BlobSource
from holdfast.storage import Store, is_locked

_REMOVE = "remove it, or put a whole copy in its place (`holdfast cp`); no run uses it"
_OLD_TORCH = (b"\x80", b"ustar")


def files(store: Store, catalog: Catalog, depth: int) -> Iterator[Finding]:
    """Yield what is to be said of the files."""
    for checkpoint in catalog:
        yield from _file(store, checkpoint)
    for path in catalog.aside:
        cure = "remove it once nobody wants to look at it any more; no run uses it"
        yield Finding(WARNING, "a damaged checkpoint that a run has set aside", path, cure, "set-aside")
    for path in catalog.leftovers:
        yield _leftover(store, path)
    yield from _orphans(store, catalog, depth)
    yield from _noted(store, catalog, depth)


def _file(store: Store, checkpoint: Checkpoint) -> Iterator[Finding]:
    path = checkpoint.path
    for problem in checkpoint.damaged_notes:
        cure = "the checkpoint counts as pinned until the damaged change is removed"
        yield Finding(WARNING, f"what people say of it cannot be read whole: {problem}", path, cure, "damaged-notes")
    if checkpoint.damaged:
        yield Finding(PROBLEM, f"damaged: {checkpoint.problem}", path, _REMOVE, "damaged")
    elif checkpoint.problem and store.is_local and os.path.isdir(path) and not checkpoint.sharded:
        yield Finding(PROBLEM, f"a folder that cannot be read: {checkpoint.problem}", path, _permit(path), "unreadable")
    elif checkpoint.problem:
        cure = _permit(path) if store.is_local and not os.access(path, os.R_OK) else "look what stands there"
        if "format" in checkpoint.problem:
            cure = "install a newer holdfast to read it"
        yield Finding(PROBLEM, f"cannot be read: {checkpoint.problem}", path, cure, "unreadable")
    elif checkpoint.facts is None:
        yield _foreign(store, checkpoint)


def _permit(path: str) -> str:
    if not os.path.exists(path):
        return "remove the link, or put back what it leads to"
    return "give this user the right to read it (chmod, chown), or run as its owner"


def _foreign(store: Store, checkpoint: Checkpoint) -> Finding:
    if checkpoint.sharded:
        what = "a directory of shards without a manifest: it is neither ranked, verified nor removed, nor resumed from"
        cure = "plain torch.distributed.checkpoint loads it; `holdfast export` makes a checkpoint with a manifest of it"
        return Finding(NOTE, what, checkpoint.path, cure, "foreign")
    source = BlobSource(store, checkpoint.name, checkpoint.size)
    if reading.looks_like_zip(source) or source.read(0, 1) == _OLD_TORCH[0] or source.read(257, 5) == _OLD_TORCH[1]:
        what = "saved by another program: without a manifest it is neither ranked nor removed, nor resumed from"
        return Finding(
            NOTE, what, checkpoint.path, "`holdfast import` makes a checkpoint with a manifest of it", "foreign"
        )
    what = "named like a checkpoint, but its beginning is that of none"
    return Finding(PROBLEM, what, checkpoint.path, "remove or rename it; no run uses it", "garbage")


def _leftover(store: Store, path: str) -> Finding:
    alive = is_locked(path) if store.is_local else None
    if alive:
        return Finding(NOTE, "a write that is under way", path, "leave it: its writer lives", "leftover")
    if alive is None:
        what, cure = "an unfinished write, whose writer may live", "leave it; the next run sweeps it when that is known"
        return Finding(NOTE, what, path, cure, "leftover")
    name = store.name_of(path) if os.path.exists(path) else None
    size = store.size(name) if name else 0
    what = f"an unfinished write of {size} bytes, whose writer is dead"
    return Finding(WARNING, what, path, "the next run here removes it; or remove it now", "leftover")


def _orphans(store: Store, catalog: Catalog, depth: int) -> Iterator[Finding]:
    """Yield the signatures of files that are not there."""
    names = [blob.name for blob in store.blobs(depth, {})]
    there = {*names, *(checkpoint.name for checkpoint in catalog)}
    for name in names:
        if name.endswith(SUFFIX) and name.removesuffix(SUFFIX) not in there:
            what = f"a signature of {os.path.basename(name).removesuffix(SUFFIX)}, which is not there"
            yield Finding(WARNING, what, store.path(name), "remove it, or put the checkpoint back", "orphan-signature")


def _noted(store: Store, catalog: Catalog, depth: int) -> Iterator[Finding]:
    """Yield the notes of checkpoints that are not there, and what hides notes."""
    there = {notes.identity(checkpoint.facts) for checkpoint in catalog if checkpoint.facts is not None}
    for identity, folders in notes.known(store, depth).items():
        if identity not in there:
            path = store.path(f"{folders[0]}{notes.FOLDER}/{identity}")
            cure = "nothing: they are swept with the next removal here"
            yield Finding(NOTE, "notes of a checkpoint that is not there", path, cure, "orphan-notes")


def deep(catalog: Catalog) -> Iterator[Finding]:
    """Read all bytes of all checkpoints; yield those that are not as they were saved."""
    from holdfast.engine import verify  # noqa: PLC0415 - imports torch

    for checkpoint in catalog:
        if checkpoint.problem:
            continue
        try:
            verify(checkpoint.path)
        except DamagedCheckpointError as error:
            if checkpoint.facts is not None or error.record != "the file":
                what = f"damaged: {error.record}: {error.problem}"
                yield Finding(PROBLEM, what, checkpoint.path, _REMOVE, "damaged")
        except (LoadError, OSError) as error:
            yield Finding(PROBLEM, f"cannot be read: {error}", checkpoint.path, _permit(checkpoint.path), "unreadable")
