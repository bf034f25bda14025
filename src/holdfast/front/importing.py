"""From what other programs wrote to a checkpoint with a manifest: to be ranked, verified and kept."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from holdfast.engine.streaming import Promises, write_promised
from holdfast.errors import ConfigurationError, printable
from holdfast.front.overwriting import refuse_own_source
from holdfast.front.provenance import versions
from holdfast.front.shards import INDEX, SUFFIX
from holdfast.front.stock import facts_of
from holdfast.front.tensorfiles import TensorFiles, index_of
from holdfast.front.weights import find_weights, read_state
from holdfast.records import IMPORTED, LIGHTNING, LIGHTNING_FORM, RANKED, Facts, Lineage, Manifest
from holdfast.scanning import EXTENSION
from holdfast.storage import Store, is_local, open_store, plain_path, split_path, use_options

_MODES = ("min", "max")


@dataclass(frozen=True)
class Imported:
    """A checkpoint that was made of another program's file: where it is, and what its manifest says."""

    path: str
    manifest: Manifest


@dataclass(frozen=True)
class _Words:
    """What the caller says of a checkpoint, over what the file says itself."""

    metrics: Mapping[str, float]
    step: int | None
    epoch: int | None
    run: str | None
    monitor: str | None
    mode: str | None


def import_checkpoint(  # noqa: PLR0913 - each says one thing that a stranger's file may not
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    step: int | None = None,
    epoch: int | None = None,
    run: str | None = None,
    monitor: str | None = None,
    mode: str | None = None,
    add_prefix: str = "",
    entry: str | None = None,
    force: bool = False,
    allow: Sequence[Any] = (),
    allow_unsafe: bool = False,
    progress: Callable[[int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Imported:
    """Make a checkpoint with a manifest of a file that has none; return where it is. The file is not touched.

    Of safetensors it becomes ``{"state_dict": ..., "epoch": ..., "global_step": ...}``, which Lightning's
    ``load_from_checkpoint`` reads, too; of a torch file its state stays as it is. What the file does not say itself
    can be said here. The bytes stream: memory of the largest tensor is enough.

    Args:
        path: a ``.safetensors`` file, an index (``.safetensors.index.json``), a directory that holds either, or what
            ``torch.save``, Lightning or holdfast wrote; local paths or fsspec URLs.
        out: the file to write, or a directory that is there.
        metrics: by name, over those that the file knows (of Lightning: those of its ``ModelCheckpoint``).
        step: the finished optimizer steps; default: as the file has them, else 0.
        epoch: the epoch; default likewise.
        run: which run it counts to; default: ``"imported"``, which no training takes for its own; where the file
            names the run it is from, that is its lineage.
        monitor: the metric by which it is ranked.
        mode: ``"min"`` or ``"max"``.
        add_prefix: put before the weights' names, such as Lightning's ``"model."``.
        entry: the key under which a torch file has its weights, if that is none of the usual ones.
        force: write over a file that is there.
        allow: as for ``holdfast.load``.
        allow_unsafe: as for ``holdfast.load``.
        progress: called with the bytes of each piece written.
        storage_options: for URLs, as fsspec takes them; remembered for what lies beside: ``docs/object-storage.md``.

    Raises:
        LoadError: as ``holdfast.load``; also if a safetensors file is not whole, or lacks what its index tells of.
        ConfigurationError: if an argument is wrong, or the file to write is there already or is the one to read.
        SaveError: if it cannot be written.

    """
    use_options(storage_options, path, out)
    source, words = os.fspath(path), _checked(metrics, step, epoch, run, monitor, mode)
    store, name = _free_place(_goal(source, os.fspath(out)), force=force)
    promises = Promises()
    index = index_of(source)
    refuse_own_source([store.path(name)], [source] if index is None else index.paths)
    with nullcontext() if index is None else TensorFiles(index) as files:
        if files is None:
            state, known = _from_torch(source, entry, add_prefix, allow, allow_unsafe=allow_unsafe)
        else:
            state, known = _from_tensors(files, promises, add_prefix, words), files.facts()
        facts, advance = _told(known, words, source, name), progress or (lambda _: None)
        return Imported(store.path(name), write_promised(store, name, state, facts, promises, advance=advance))


def _free_place(goal: str, *, force: bool) -> tuple[Store, str]:
    """Return where the checkpoint goes.

    Raises:
        ConfigurationError: if something is there.

    """
    root, name = split_path(goal)
    store = open_store(root)
    if store.exists(name) and not force:
        msg = f"{printable(goal)} is there already: name another, or write over it with force=True (--force)"
        raise ConfigurationError(msg)
    return store, name


def _from_torch(
    source: str, entry: str | None, prefix: str, allow: Sequence[Any], *, allow_unsafe: bool
) -> tuple[Any, Facts]:
    """Return the state of a torch file, with the prefix before the weights' names, and what it says of itself."""
    state, manifest = read_state(source, allow=allow, allow_unsafe=allow_unsafe)
    place, weights = find_weights(state, source, entry)
    known = facts_of(state, manifest, source, place)
    if prefix:
        renamed = OrderedDict((f"{prefix}{key}", value) for key, value in weights.items())
        state = {**state, place: renamed} if place else renamed
    return state, known


def _checked(  # noqa: PLR0913, PLR0917 - as they were given
    metrics: Mapping[str, float] | None,
    step: int | None,
    epoch: int | None,
    run: str | None,
    monitor: str | None,
    mode: str | None,
) -> _Words:
    for word, value in (("step", step), ("epoch", epoch)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            msg = f"`{word}` is a whole number from 0, but got {value!r}"
            raise ConfigurationError(msg)
    if mode is not None and mode not in _MODES:
        msg = f"`mode` can be 'min' or 'max' but got {mode!r}"
        raise ConfigurationError(msg)
    try:
        given = {str(key): float(value) for key, value in (metrics or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        msg = f"`metrics` are numbers by their names, but got {metrics!r}"
        raise ConfigurationError(msg) from error
    return _Words(given, step, epoch, run, monitor, mode)


def _goal(source: str, out: str) -> str:
    """Return the file to write: in a directory it is called as its source."""
    if not (out.endswith("/") or (is_local(out) and os.path.isdir(plain_path(out)))):
        return out
    name = os.path.basename(source.rstrip("/"))
    for ending in (INDEX, SUFFIX):
        name = name.removesuffix(ending)
    return f"{out.rstrip('/')}/{os.path.splitext(name)[0] or 'model'}{EXTENSION}"


def _from_tensors(files: TensorFiles, promises: Promises, prefix: str, words: _Words) -> dict[str, Any]:
    known = files.facts()
    weights: OrderedDict[str, Any] = OrderedDict()
    for name, shape, dtype, make in files.tensors():
        weights[prefix + name] = promises.promise(shape, dtype, make)
    for name, kept in files.tied().items():
        if prefix + kept in weights:
            weights.setdefault(prefix + name, weights[prefix + kept])
    step = known.step if words.step is None else words.step
    epoch = known.epoch if words.epoch is None else words.epoch
    return {"epoch": epoch, "global_step": step, LIGHTNING: LIGHTNING_FORM, "state_dict": weights}


def _told(known: Facts, words: _Words, source: str, name: str) -> Facts:
    """Return the facts of the new checkpoint."""
    step = known.step if words.step is None else words.step
    policy = dict(known.policy)
    if words.monitor is not None or words.mode is not None:
        monitor = words.monitor if words.monitor is not None else policy.get("monitor")
        policy = {"monitor": monitor, "mode": words.mode or policy.get("mode", "min"), "save_top_k": -1}
    return replace(
        known,
        step=step,
        epoch=known.epoch if words.epoch is None else words.epoch,
        sequence=step,
        metrics={**known.metrics, **words.metrics},
        reason=f"imported from {os.path.basename(source.rstrip('/'))}",
        run=IMPORTED if words.run is None else words.run,
        owner="",
        names={RANKED: name},
        policy=policy,
        resumed_from=Lineage(source, known.step, known.run) if known.run else None,
        versions=versions(),
    )
