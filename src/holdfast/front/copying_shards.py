"""Copying a sharded checkpoint: all its files into a draft, checked against the manifest there, and then committed.

Imports no torch.
"""

from __future__ import annotations

from holdfast.directories import Directory, is_sealed, verify_directory, with_directory
from holdfast.errors import DamagedCheckpointError, LoadError
from holdfast.format.directory import MANIFEST_FILE
from holdfast.front.copying import COPIED, DIFFERENT, SKIPPED, Advance, Place, copy_blob, save_errors
from holdfast.records import Manifest


def copy_checkpoint(source: Place, goal: Place, *, force: bool, advance: Advance) -> str:
    """Copy a file, as ``copy_blob``, or a sharded checkpoint; return what ``copy_blob`` does.

    Raises:
        DamagedCheckpointError: if the source is damaged, or changed while it was read.
        ConfigurationError: if it is sharded and the target is no local filesystem.
        SaveError: if the copy cannot be written, or does not read back as it was written.
        LoadError, OSError: if the source cannot be read.

    """
    if not is_sealed(source.store, source.name):
        return copy_blob(source, goal, force=force, advance=advance)

    def copy(found: Directory) -> str:
        manifest = found.manifest()
        if manifest is None:
            raise found.damaged(MANIFEST_FILE, "it is missing")
        if goal.store.exists(goal.name):
            same = _is_same(goal, manifest)
            if same or not force:
                advance(goal.store.size(goal.name) if same else 0)
                return SKIPPED if same else DIFFERENT
        return _copy(source, goal, manifest, advance)

    return with_directory(source.path, copy)


def _copy(source: Place, goal: Place, manifest: Manifest, advance: Advance) -> str:
    with save_errors(goal):
        draft = goal.store.draft(goal.name)
    try:
        for name in (*(record.name for record in manifest.records), MANIFEST_FILE):
            part = Place(source.store, f"{source.name}/{name}")
            try:
                copy_blob(part, Place(goal.store, f"{draft.folder}/{name}"), force=True, advance=advance)
            except FileNotFoundError as error:
                raise DamagedCheckpointError(source.path, name, "it is missing") from error
        try:
            with_directory(goal.store.path(draft.folder), verify_directory)
        except DamagedCheckpointError as error:  # each file was read back: it is the source that is so
            raise DamagedCheckpointError(source.path, error.record, error.problem) from error
        with save_errors(goal):
            draft.settle()
    finally:
        draft.drop()
    return COPIED


def _is_same(goal: Place, manifest: Manifest) -> bool:
    """Tell whether the same checkpoint is there already, whole."""
    if not is_sealed(goal.store, goal.name):
        return False
    try:
        return with_directory(goal.path, verify_directory) == manifest
    except LoadError:
        return False
