"""Loading, verifying and finding checkpoints, for people and for the integrations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from holdfast.catalog import EXTENSION, Found, newest_first, resumable, scan
from holdfast.engine import Into, keygen, load, load_into, sign, verify
from holdfast.engine.commit import save_errors
from holdfast.errors import DamagedCheckpointError, LoadError, MissingExtraError, printable
from holdfast.policy.naming import depth, name_pattern
from holdfast.policy.settings import Settings
from holdfast.records import LAST
from holdfast.storage import is_local, open_store, split_path

__all__ = [
    "Into",
    "checkpoints",
    "exists",
    "find_last",
    "is_filled",
    "keygen",
    "load",
    "load_into",
    "load_newest",
    "make_folder",
    "newest",
    "sign",
    "verify",
    "whole",
    "write_ranking",
]

_DEPTH = 4  # folders below a directory in which its checkpoints are looked for


def newest(dirpath: str | os.PathLike[str]) -> str | None:
    """Return the path of the newest checkpoint in a directory that is whole; None if there is none.

    Weights-only files do not count: training cannot resume from them. Damaged ones are passed over
    with a warning that names them.
    """
    store = open_store(dirpath)
    found = scan(store, extension=None, depth=_DEPTH if store.is_local else 1)
    first = newest_of(found)
    if first is None and any(item.facts is None for item in found):
        warnings.warn(f"the checkpoints in {dirpath} have no manifest: holdfast cannot tell the newest", stacklevel=2)
    return None if first is None else first.path


def newest_of(found: Iterable[Found]) -> Found | None:
    """Return the newest that is whole and has a full state; warn of damaged ones on the way."""
    return next(whole(_resumable(found, stacklevel=4)), None)


def load_newest(
    found: Iterable[Found], living: Mapping[str, torch.Tensor] | None = None, *, allow: Sequence[Any] = ()
) -> tuple[Found, Any] | None:
    """Load the newest that is whole and has a full state; None if there is none.

    Damaged ones, and such as can no longer be read, are passed over with a warning that names them.

    Args:
        found: the candidates, in any order.
        living: tensors, by their names in the state, that may be written over: the state's are then the
            same memory. Only while there is an older candidate to fall back on are they written over with
            what is not known to be whole.
        allow: further classes and functions that the safe loader may use.

    Raises:
        UnsafeCheckpointError: if the newest whole one needs classes that are not allowed: an older
            one in its place would be a step back that nobody asked for.
        LoadError: if the newest whole one cannot be loaded for another reason; or if none is whole and a
            damaged one has been written over living tensors.

    """
    items = list(_resumable(found, stacklevel=4))
    spoilt = ""
    for item, older in zip(items, range(len(items) - 1, -1, -1), strict=True):
        into = Into(living or {}, careful=not older)
        try:
            return item, load_into(item.path, into, allow=allow)
        except (DamagedCheckpointError, OSError) as error:
            warnings.warn(f"passed over: {error}", stacklevel=3)
            spoilt = item.path if into.touched else spoilt
    if spoilt:
        msg = (
            f"no checkpoint is whole, and the model holds what was read of {spoilt} before its damage was found. "
            "Move the damaged files away, and build model and optimizer anew"
        )
        raise LoadError(msg)
    return None


def _resumable(found: Iterable[Found], *, stacklevel: int) -> Iterator[Found]:
    """Return what training can resume from, newest first; warn of what cannot be read at all."""
    items = list(found)
    for item in items:
        if item.problem:
            message = printable(f"passed over: {item.path} cannot be read: {item.problem}")
            warnings.warn(message, stacklevel=stacklevel)
    return resumable(items)


def whole(candidates: Iterable[Found]) -> Iterator[Found]:
    """Yield those candidates whose every byte is as it was saved; warn of the others."""
    for item in candidates:
        try:
            verify(item.path)
        except (LoadError, OSError) as error:  # noqa: PERF203 - one bad file must not hide the others
            warnings.warn(f"passed over: {error}", stacklevel=3)
        else:
            yield item


def checkpoints(dirpath: str | os.PathLike[str], *, extension: str = EXTENSION, depth: int = 0) -> list[Found]:
    """Return the checkpoint files of a directory with what their manifests say of them."""
    return scan(open_store(dirpath), extension=extension, depth=depth)


def find_last(dirpath: str, settings: Settings) -> set[str]:
    """Return the paths that "resume from last" may mean in a directory.

    The newest whole checkpoint that its manifest calls ``last``, and files without a manifest whose
    name fits the template of ``last`` to its end. If every ``last`` is damaged, the newest whole
    checkpoint of any kind.
    """
    store = open_store(dirpath)
    style = settings.style
    deep = max(depth(style.last), depth(settings.filename))
    found = scan(store, extension=style.extension, depth=deep)
    pattern = name_pattern(style.last, style, auto_insert=settings.auto_insert_metric_name)
    named = [item for item in found if item.facts is None and pattern.fullmatch(item.name)]
    # A save that was killed between its commit and the linking of its second name is a last all the same.
    known = [item for item in newest_first(found) if item.facts is not None and item.facts.kind == "lightning"]
    lasts = [item for item in known if item.role is not None and item.facts and LAST in item.facts.names]
    # Training cannot go on from weights alone; but a test can use them, and the Trainer says so of a fit.
    ours = [item for item in lasts if item.facts and not item.facts.weights_only] or lasts
    paths = {item.path for item in whole(named)}
    newest_last = next(whole(ours), None)
    if newest_last is not None:
        return paths | {newest_last.path}
    if paths or not (ours or named):
        return paths
    any_whole = next(whole(item for item in resumable(known) if item not in ours), None)
    return set() if any_whole is None else {any_whole.path}


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is a file at a path or URL."""
    root, name = split_path(path)
    return open_store(root).exists(name)


def is_filled(dirpath: str) -> bool:
    """Tell whether a directory exists and is not empty."""
    if is_local(dirpath):
        return os.path.isdir(dirpath) and bool(os.listdir(dirpath))
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
