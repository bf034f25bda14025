"""A directory of checkpoints as a value: what ``ls`` prints, for programs and notebooks. Imports no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, overload

from holdfast import notes
from holdfast.clock import Clock, SystemClock
from holdfast.directories import is_sealed, is_sharded, stands_plain
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, MissingMetricError, printable
from holdfast.front.checkpoint import Checkpoint, reading_of
from holdfast.front.explaining import decide
from holdfast.policy.ranking import badness
from holdfast.policy.retention import Decision
from holdfast.records import LAST, Noted
from holdfast.scanning import Found, look, newest_first, survey
from holdfast.storage import Store, is_local, open_store, split_path, use_options
from holdfast.storage.standing import standing

_DEPTH = 100  # folders below the given directory: any number that people nest runs in


class Catalog(Sequence[Checkpoint]):
    """The checkpoints of a directory, newest first; at the end those without a manifest, by their names.

    It is what was there when it was asked for; ask again for what is there now.

    Attributes:
        path: the directory, as it was given.
        aside: the paths of damaged checkpoints that were set aside.

    """

    def __init__(self, path: str, store: Store) -> None:
        """Read the directory."""
        self.path = path
        self._store = store
        seen = survey(store, depth=_DEPTH)
        known = newest_first(seen.found)
        said = notes.read(store, _DEPTH)
        reasons = _OfAll(self)
        found = (*known, *(item for item in seen.found if item.facts is None))
        self._checkpoints = [Checkpoint(store, item, _said(said, item), reasons) for item in found]
        self.aside = [store.path(name) for name in seen.aside]

    @overload
    def __getitem__(self, at: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, at: slice) -> list[Checkpoint]: ...
    def __getitem__(self, at: int | slice) -> Checkpoint | list[Checkpoint]:
        """Return a checkpoint by its place, or some of them."""
        return self._checkpoints[at]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        """Yield them, newest first."""
        return iter(self._checkpoints)

    @property
    def runs(self) -> dict[str, list[Checkpoint]]:
        """The checkpoints of each run by its identifier, newest run first; "" for those that name none."""
        runs: dict[str, list[Checkpoint]] = {}
        for checkpoint in self:
            runs.setdefault(checkpoint.run, []).append(checkpoint)
        return runs

    @property
    def size(self) -> int:
        """The bytes of all; those of two names that share them once."""
        sizes = {checkpoint.file_id or checkpoint.name: checkpoint.size for checkpoint in self}
        return sum(sizes.values())

    @property
    def leftovers(self) -> list[str]:
        """The paths of unfinished writes: of saves that died, or that are under way now."""
        return [self._store.path(name) for name in self._store.leftovers(_DEPTH)]

    def named(self, name: str | os.PathLike[str]) -> Checkpoint:
        """Return the checkpoint of this name or path.

        Raises:
            CheckpointNotFoundError: if there is none.

        """
        text = os.fspath(name)
        inside = self._store.name_of(text)
        for checkpoint in self:
            if checkpoint.name in (text, inside):
                return checkpoint
        msg = f"there is no checkpoint {printable(text)} in {printable(self.path)}"
        raise CheckpointNotFoundError(msg)

    def last(self) -> Checkpoint | None:
        """Return the newest checkpoint; None if there is none that has a manifest."""
        return next((checkpoint for checkpoint in self if checkpoint.facts is not None), None)

    def best(self, metric: str | None = None, mode: str | None = None) -> Checkpoint | None:
        """Return the best checkpoint by a metric, late ones included; None if none has a real value of it.

        Of equal ones the older; NaN is never best. Of several runs the best of all.

        Args:
            metric: its name; None for the one that the newest checkpoint was ranked by.
            mode: ``"min"`` or ``"max"``; None for the mode in which a run ranks by this metric.

        Raises:
            MissingMetricError: if no checkpoint has the metric, or no run ranks by any.
            ConfigurationError: if the mode is neither, or is not given and no run ranks by this metric.

        """
        if metric is None:
            metric = next((checkpoint.monitor for checkpoint in self if checkpoint.monitor is not None), None)
            if metric is None and self:
                msg = f"no run in {printable(self.path)} ranks by a metric: name one. {self._known_metrics()}"
                raise MissingMetricError(msg)
        have = [checkpoint for checkpoint in self if metric in checkpoint.metrics]
        if self and not have:
            msg = f"no checkpoint in {printable(self.path)} has the metric {metric!r}. {self._known_metrics()}"
            raise MissingMetricError(msg)
        mode = self._mode(metric, mode)
        real = [item for item in reversed(have) if not math.isnan(item.metrics[metric or ""])]
        oldest_first = sorted(real, key=lambda item: item.role == LAST)  # a second name for the same state
        return min(oldest_first, key=lambda item: badness(item.metrics[metric or ""], mode), default=None)

    def _mode(self, metric: str | None, mode: str | None) -> str:
        if mode is None:
            mode = next((checkpoint.mode for checkpoint in self if checkpoint.monitor == metric), None)
        if mode not in ("min", "max"):
            if mode is None and not self:
                return "min"
            what = "no run here ranks by it" if mode is None else f"but got {mode!r}"
            msg = f"the mode for the metric {metric!r} is 'min' or 'max': {what}. Say which, such as mode='max'"
            raise ConfigurationError(msg)
        return mode

    def _known_metrics(self) -> str:
        known = sorted({name for checkpoint in self for name in checkpoint.metrics})
        return f"Known are: {', '.join(map(printable, known))}" if known else "No checkpoint here has any metric"

    def plan(
        self, keep: object = None, now: datetime | None = None, resumed_from: Collection[str] = ()
    ) -> list[Decision]:
        """Say for each checkpoint, in this order, whether rules keep it, and why. Nothing is removed by asking.

        Args:
            keep: rules, such as ``Latest(3) | Best(2, "val_loss")``; None for those that each run follows.
            now: the time, aware of its zone; None for the time now.
            resumed_from: names of checkpoints that runs are known to have resumed from, besides those that the
                manifests tell of.

        Raises:
            ConfigurationError: for what is no rule, or a time without a zone.

        """
        at = SystemClock().now() if now is None else now
        return decide(self._store, self._checkpoints, at, keep=keep, resumed_from=resumed_from)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each checkpoint: the rows of a table, for a data frame or a CSV file.

        The keys are stable; each metric has one of its own, ``metrics.NAME``, in the rows that have it. Times are
        ISO 8601 in UTC, sizes bytes.
        """
        return [_record(checkpoint) for checkpoint in self]

    def __repr__(self) -> str:
        """Return how many of what there are."""
        return f"<Catalog {printable(self.path)}: {len(self)} checkpoints of {len(self.runs)} runs, {self.size} bytes>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        html: str = import_module("holdfast.front.showing").catalog_html(self)
        return html


def catalog(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Catalog:
    """Return the checkpoints below a directory or fsspec URL: what they say of themselves, and why each is kept.

    Reads the beginning of each manifest and what people have said, not the data: milliseconds for a hundred, and
    torch is not imported. Whatever stands there, torn, foreign, or not to be read, is listed with its ``problem``.

    ``storage_options``, for URLs, are fsspec's, remembered for what lies beside: see ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is no such directory.
        LoadError: if it may not be read, or a remote filesystem does not answer.
        ConfigurationError: if no filesystem is known for the URL.

    """
    use_options(storage_options, path)
    text = os.fspath(path)
    given = os.path.expanduser(text) if is_local(text) else text
    store = open_store(given)
    found = os.path.isdir(store.root) and not is_sealed(*_split(given)) if store.is_local else True
    with reading_of(text):
        made = Catalog(text, store) if found else None
    if made is None or not (store.is_local or made or made.aside):
        sealed = is_sealed(*_split(given))
        what = (
            f"that is a {'sharded checkpoint' if sealed else 'file'}: `holdfast show` and `holdfast.open` take one"
            if sealed or _is_file(store, given)
            else "there is nothing of that name"
        )
        msg = f"there is no directory {printable(text)}: {what}"
        raise CheckpointNotFoundError(msg)
    return made


def open_checkpoint(
    path: str | os.PathLike[str], *, clock: Clock | None = None, storage_options: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Return one checkpoint by its path or fsspec URL. Torch is not imported.

    One that is torn, or has no manifest, is returned with its ``problem``, or without ``facts``. ``clock`` tells the
    time of what is said of it; for tests.

    ``storage_options``, for URLs, are fsspec's, remembered for what lies beside: see ``docs/object-storage.md``.

    Raises:
        CheckpointNotFoundError: if there is nothing of that name, or a directory that is no sharded checkpoint.
        ConfigurationError: if no filesystem is known for the URL.

    """
    use_options(storage_options, path)
    root, name = split_path(path)
    store = open_store(root)
    found = _found(store, name)
    if found is None:
        directory = store.exists(name) if store.is_local else bool(open_store(store.path(name)).blobs(depth=1))
        what = "that is a directory: `holdfast ls` and `holdfast.catalog` take one"
        what = what if directory else "there is nothing of that name"
        msg = f"there is no checkpoint file {printable(os.fspath(path))}: {what}"
        raise CheckpointNotFoundError(msg)
    for mine in found.facts.names.values() if found.facts is not None else ():
        above = root[: len(root) + 1 + len(name) - len(mine) - 1]
        if "/" in mine and above and f"{root}/{name}" == f"{above}/{mine}":
            store = open_store(above)
            found = look(store, mine)
            break
    return Checkpoint(store, found, _said_of(store, found), _OfOne(store), clock=clock)


def _found(store: Store, name: str) -> Found | None:
    """Return the checkpoint of a name; None if there is none, or a directory that is none."""
    if not store.is_local:
        there = standing(store, name)
        return look(store, name, there) if there.blob is not None or stands_plain(there) else None
    if not store.exists(name) or (os.path.isdir(store.path(name)) and not is_sharded(store, name)):
        return None
    return look(store, name)


class _OfAll:
    """Why the checkpoints of a catalog are kept; asked of all at once, and again after something was said of one."""

    def __init__(self, catalog: Catalog) -> None:
        """Ask nothing yet."""
        self._catalog = catalog
        self._known: dict[str, str] = {}

    def of(self, checkpoint: Checkpoint) -> str:
        """Return the reason."""
        if not self._known:
            self._known = {decision.name: decision.reason for decision in self._catalog.plan()}
        return self._known.get(checkpoint.name, "")

    def forget(self) -> None:
        """Ask anew."""
        self._known = {}


class _OfOne:
    """Why a checkpoint that was opened by itself is kept: the others of its directory decide, read when it matters."""

    def __init__(self, store: Store) -> None:
        """Read nothing yet."""
        self._store = store

    def of(self, checkpoint: Checkpoint) -> str:
        """Return the reason."""
        beside = Catalog(self._store.root, self._store)
        return next((item.kept for item in beside if item.name == checkpoint.name), "")

    def forget(self) -> None:
        """Know nothing to forget."""


def _said(said: notes.Notes, item: Found) -> Noted:
    if not (said or said.problems):
        return Noted()
    identity = notes.identity(item.facts) if item.facts is not None else ""
    return said.of(identity)


def _said_of(store: Store, item: Found) -> Noted:
    identity = notes.identity(item.facts) if item.facts is not None else ""
    if item.facts is None or not identity:
        return Noted()
    return notes.read_one(store, notes.folders_of(item.name, item.facts), identity)


def _split(path: str) -> tuple[Store, str]:
    root, name = split_path(path)
    return open_store(root), name


def _is_file(store: Store, path: str) -> bool:
    if store.is_local:
        return os.path.isfile(store.root)
    root, name = split_path(path)
    return open_store(root).exists(name)


def _record(item: Checkpoint) -> dict[str, Any]:
    known = item.facts
    record = {
        "name": item.name,
        "path": item.path,
        "run": item.run,
        "owner": item.owner,
        "role": item.role,
        "step": item.step if known is not None else None,
        "epoch": item.epoch if known is not None else None,
        "sequence": item.sequence if known is not None else None,
        "time": known.time if known is not None else None,
        "size": item.size,
        "file_id": item.file_id,
        "monitor": item.monitor,
        "mode": item.mode if item.monitor is not None else None,
        "score": item.score,
        "reason": known.reason if known is not None else None,
        "kept": item.kept,
        "pinned": item.pinned,
        "tags": ",".join(item.tags),
        "notes": "\n".join(note.text for note in item.notes),
        "late_metrics": ",".join(item.late_metrics),
        "weights_only": known.weights_only if known is not None else None,
        "kind": known.kind if known is not None else None,
        "git_commit": known.git_commit if known is not None else None,
        "problem": item.problem,
        "damaged": item.damaged,
        "damaged_notes": "\n".join(item.damaged_notes),
    }
    return record | {f"metrics.{name}": value for name, value in item.metrics.items()}
