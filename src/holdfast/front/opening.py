"""Loading, verifying and finding checkpoints, for people and for the integrations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from holdfast.engine import Into, keygen, load, load_into, sign, verify
from holdfast.engine.commit import save_errors
from holdfast.errors import DamagedCheckpointError, LoadError, MissingExtraError
from holdfast.front.passing import PassingOver
from holdfast.front.planning import Run
from holdfast.front.second_tier import Candidate, SecondTier
from holdfast.policy.naming import depth, name_pattern
from holdfast.policy.settings import Settings
from holdfast.records import LAST, PREEMPTED
from holdfast.scanning import EXTENSION, Found, name_before, newest_first, resumable, scan, scan_aside
from holdfast.storage import RUN_LOCK, is_local, open_store, split_path, use_options
from holdfast.telling import warn

__all__ = [
    "Into",
    "checkpoints",
    "exists",
    "find_last",
    "is_filled",
    "keygen",
    "load",
    "load_into",
    "make_folder",
    "newest",
    "set_torn_aside",
    "sign",
    "verify",
    "whole",
    "write_ranking",
]

_DEPTH = 4  # folders below a directory in which its checkpoints are looked for


def newest(dirpath: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> str | None:
    """Return the path of the newest checkpoint in a directory that is whole; None if there is none.

    Weights-only files do not count: training cannot resume from them. Damaged ones are passed over
    with a warning that names them, and stay where they are: this only looks.

    ``storage_options``, for URLs, are fsspec's, remembered for what lies beside: see ``docs/object-storage.md``.
    """
    use_options(storage_options, dirpath)
    store = open_store(dirpath)
    found = scan(store, extension=None, depth=_DEPTH if store.is_local else 1)
    passing = PassingOver()
    passing.note_unreadable(found)
    first = next(whole(resumable(found), passing), None)
    passing.settle()
    if first is None and any(item.facts is None for item in found):
        warn(f"the checkpoints in {dirpath} have no manifest: holdfast cannot tell the newest")
    return None if first is None else first.path


def whole(candidates: Iterable[Found], passing: PassingOver) -> Iterator[Found]:
    """Yield those candidates whose every byte is as it was saved; pass over the others."""
    for item in candidates:
        try:
            verify(item.path)
        except (LoadError, OSError) as error:  # noqa: PERF203 - one bad file must not hide the others
            passing.note(item, error)
        else:
            yield item


def checkpoints(dirpath: str | os.PathLike[str], *, extension: str = EXTENSION, depth: int = 0) -> list[Found]:
    """Return the checkpoint files of a directory with what their manifests say of them."""
    return scan(open_store(dirpath), extension=extension, depth=depth)


def find_last(dirpath: str, settings: Settings, passing: PassingOver, mirror: SecondTier | None = None) -> set[str]:
    """Return the paths that "resume from last" may mean in a directory.

    The newest whole checkpoint that its manifest calls ``last``, or the newest of all if a signal had it saved;
    and files without a manifest whose name fits the template of ``last`` to its end. If every ``last`` is
    damaged, or was and is set aside, the newest whole checkpoint of any kind.

    With a mirror the same of both tiers together: what only the mirror has is fetched into the directory.

    Raises:
        DamagedCheckpointError: for the first that would be passed over, if ``passing`` stops there.
        LoadError: if there is none here and the mirror cannot be asked; or if it is there and cannot be fetched.

    """
    store = open_store(dirpath)
    style = settings.style
    deep = max(depth(style.last), depth(settings.filename))
    found = scan(store, extension=style.extension, depth=deep)
    pattern = name_pattern(style.last, style, auto_insert=settings.auto_insert_metric_name)
    named = [item for item in found if item.facts is None and pattern.fullmatch(item.name)]
    # A save that was killed between its commit and the linking of its second name is a last all the same.
    if mirror is not None:
        passing.note_told(mirror.look(style.extension, deep), afar=True)
    candidates = map(Candidate, newest_first(found)) if mirror is None else mirror.candidates(found)
    known = [one for one in candidates if one.found.facts is not None and one.found.facts.kind == "lightning"]
    lasts = [one for one in known if _is_last(one.found, known[0].found)]
    # Training cannot go on from weights alone; but a test can use them, and the Trainer says so of a fit.
    ours = [one for one in lasts if one.found.facts and not one.found.facts.weights_only] or lasts
    others = [one for one in known if one.found.facts and not one.found.facts.weights_only and one not in ours]
    was_last = any(pattern.fullmatch(name_before(name)) for name in scan_aside(store, depth=deep))
    chosen: Candidate | None = None
    try:
        paths = {item.path for item in whole(named, passing)}
        chosen = next(_brought(ours, passing, mirror), None)
        if chosen is None and not paths and (ours or named or was_last):
            chosen = next(_brought(others, passing, mirror), None)
    finally:
        facts = chosen.found.facts if chosen is not None else None
        passing.settle(facts.run if facts is not None else "")
    if mirror is not None:
        _tell_of_branch(mirror, chosen, known)
        if chosen is None and not paths:
            mirror.check_may_begin_afresh()
    return paths if chosen is None else paths | {chosen.found.path}


def _tell_of_branch(mirror: SecondTier, chosen: Candidate | None, known: list[Candidate]) -> None:
    told = "" if chosen is None else mirror.other_branch(chosen, known, "`ckpt_path={!r}`")
    if told:
        warn(f"resuming from the newest whole checkpoint{told}")


def _is_last(item: Found, newest: Found) -> bool:
    """Tell whether a checkpoint was saved as ``last``, or is the newest of all and was saved because of a signal."""
    if item.facts is None or item.role is None:
        return False
    return LAST in item.facts.names or (item.role == PREEMPTED and item.facts == newest.facts)


def _brought(candidates: Iterable[Candidate], passing: PassingOver, mirror: SecondTier | None) -> Iterator[Candidate]:
    """Yield those that are whole; what only the mirror has is here by then."""
    for one in candidates:
        item = one.found
        if one.is_far and mirror is not None:
            passing.settle(item.facts.run if item.facts is not None else "")  # its name is free then
            try:
                item = mirror.bring(item)
            except (DamagedCheckpointError, FileNotFoundError) as error:
                passing.note(item, error, afar=True)
                continue
        yield from (replace(one, found=found) for found in whole([item], passing))


def beyond(mirror: SecondTier, run: Run) -> list[Found]:
    """Return what only the mirror has, under names that are free in the directory of a run."""
    extension = run.settings.style.extension
    mirror.look(extension, run.depth)
    return mirror.beyond(scan(run.store, extension=extension, depth=run.depth))


def set_torn_aside(run: Run, damaged: Collection[str] = ()) -> frozenset[str]:
    """Set aside the files of a run's directory that cannot be read because they are torn; return their names.

    They cannot say whose they are, and are no checkpoints of anybody. ``damaged`` have been passed over before the
    directory was this run's: those of them that are the run's, and are still damaged, are set aside now.
    """
    passing = PassingOver(run.store)
    found = scan(run.store, extension=run.settings.style.extension, depth=run.depth)
    passing.note_unreadable(item for item in found if item.damaged)
    for item in found:
        if item.name in damaged and not (item.problem or run.store.is_local):  # where it was done at once
            with contextlib.suppress(LoadError, OSError):  # as they were met before, unless they are whole by now
                _note_damage(passing, item)
    passing.settle(run.run)
    return frozenset(passing.damaged)


def _note_damage(passing: PassingOver, item: Found) -> None:
    try:
        verify(item.path)
    except DamagedCheckpointError as error:
        passing.note(item, error)


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a file at a path or URL."""
    root, name = split_path(path)
    return open_store(root).exists(name)


def is_filled(dirpath: str) -> bool:
    """Tell whether a directory exists and holds anything but our own lock."""
    if is_local(dirpath):
        return os.path.isdir(dirpath) and any(name != RUN_LOCK for name in os.listdir(dirpath))
    return bool(open_store(dirpath).blobs())


def make_folder(dirpath: str) -> None:
    """Make a directory where there are such things.

    Raises:
        SaveError: naming the path and the cause.

    """
    if is_local(dirpath):
        with save_errors(dirpath):
            os.makedirs(dirpath, exist_ok=True)


def write_ranking(path: str | os.PathLike[str], scores: Mapping[str, float]) -> None:
    """Write ``{path: score}`` as YAML, whole or not at all.

    Raises:
        MissingExtraError: if PyYAML is not installed.
        SaveError: naming the path and the cause.

    """
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError as error:
        package, extra = "pyyaml", "lightning"
        raise MissingExtraError(package, extra) from error
    root, name = split_path(path)
    with save_errors(os.fspath(path)):
        open_store(root).put(name, [yaml.safe_dump(dict(scores), sort_keys=False).encode()])
