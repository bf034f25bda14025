"""Copying a sharded checkpoint: all its files into a draft, each checked as it passes, and then committed as one.

Imports no torch.
"""

from __future__ import annotations

from holdfast.directories import (
    Directory,
    check_names,
    check_pieces,
    is_sealed,
    mark_in,
    pieces_of,
    verify_directory,
    with_directory,
)
from holdfast.errors import LoadError
from holdfast.format.directory import MANIFEST_FILE, SHARD_SUFFIX
from holdfast.format.pieces import Pieces
from holdfast.front.copying import COPIED, DIFFERENT, SKIPPED, Advance, Place, Watch, copy_blob, save_errors
from holdfast.records import Manifest, Record
from holdfast.storage.contract import Draft


def copy_checkpoint(source: Place, goal: Place, *, force: bool, advance: Advance) -> str:
    """Copy a file, as ``copy_blob``, or a sharded checkpoint; return what ``copy_blob`` does.

    Raises:
        DamagedCheckpointError: if the source is damaged, or changed while it was read.
        SaveError: if the copy cannot be written, or does not read back as it was written.
        LoadError, OSError: if the source cannot be read.

    """
    sealed = source.known.bundle if source.known is not None else is_sealed(source.store, source.name)
    if not sealed:
        return copy_blob(source, goal, force=force, advance=advance)

    def copy(found: Directory) -> str:
        manifest = found.manifest()
        if manifest is None:
            raise found.damaged(MANIFEST_FILE, "it is missing")
        if not goal.is_free:
            same = _is_same(goal, manifest)
            if same or not force:
                advance(goal.store.size(goal.name) if same else 0)
                return SKIPPED if same else DIFFERENT
        return _copy(found, source, goal, manifest, advance)

    return with_directory(source.path, copy)


def _copy(found: Directory, source: Place, goal: Place, manifest: Manifest, advance: Advance) -> str:
    shards = [record for record in manifest.records if record.name.endswith(SHARD_SUFFIX)]
    with save_errors(goal):
        check_names(goal.store, goal.name, manifest)
        draft = goal.store.draft(goal.name, mark_in(manifest))
    try:
        for record in shards:
            part, there = f"{source.name}/{record.name}", f"{draft.folder}/{record.name}"
            _copy_shard(found, record, Place(source.store, part), Place(goal.store, there), advance)
        for record in manifest.records:
            if record not in shards:
                _add(found, record.name, goal, draft, record)
        _add(found, MANIFEST_FILE, goal, draft)
        advance(sum(record.size for record in manifest.records if record not in shards))
        with save_errors(goal):
            draft.settle({record.name: record.size for record in shards})
    finally:
        draft.drop()
    return COPIED


def _copy_shard(found: Directory, record: Record, part: Place, there: Place, advance: Advance) -> None:
    pieces = Pieces(pieces_of(found, record))
    check = Watch(pieces.take, lambda: check_pieces(found, record, pieces))
    try:
        copy_blob(part, there, force=True, advance=advance, watch=check)
    except FileNotFoundError as error:
        raise found.damaged(record.name, "it is missing") from error


def _add(found: Directory, name: str, goal: Place, draft: Draft, record: Record | None = None) -> None:
    with found.opened(name) as opened:
        data = opened.read(0, opened.size)
    if record is not None:
        pieces = Pieces(pieces_of(found, record))
        pieces.take(0, memoryview(data))
        check_pieces(found, record, pieces)
    with save_errors(goal):
        draft.add(name, data)


def _is_same(goal: Place, manifest: Manifest) -> bool:
    """Tell whether the same checkpoint is there already, whole."""
    if not is_sealed(goal.store, goal.name):
        return False
    try:
        return with_directory(goal.path, verify_directory) == manifest
    except LoadError:
        return False
