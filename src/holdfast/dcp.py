"""Durable, verified storage for ``torch.distributed.checkpoint``: its own interfaces, our commit.

>>> import torch.distributed.checkpoint as dcp
>>> from holdfast.dcp import StorageReader, StorageWriter
>>> dcp.save(state, storage_writer=StorageWriter("runs/step-100.ckpt"))
>>> dcp.load(state, storage_reader=StorageReader("runs/step-100.ckpt"))

What is written is a directory that plain ``dcp.load`` reads, and that ``holdfast ls``, ``verify`` and ``resume`` know.
``Checkpointer`` writes the same, asynchronously, with a policy, and without asking for any of this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.futures import Future

from holdfast.clock import SystemClock
from holdfast.engine.commit import save_errors
from holdfast.engine.sharded.committing import settle, shard_name, write_stream
from holdfast.engine.sharded.metadata import encode
from holdfast.engine.sharded.parts import Values
from holdfast.engine.sharded.reading import Reading
from holdfast.engine.sharded.resting import Resting, at_rest
from holdfast.errors import ConfigurationError
from holdfast.records import Facts, Record
from holdfast.storage import StorageOptions, Store, open_store, split_path, use_options
from holdfast.storage.contract import HIDDEN, Draft

__all__ = ["StorageReader", "StorageWriter"]


@dataclass(frozen=True)
class _Target:
    """Where a rank writes: made by the coordinator, carried to the others by the plan."""

    folder: str
    file: str


@dataclass(frozen=True)
class _Place:
    """Where an item lies, and what is known of its file."""

    record: Record
    offset: int
    length: int


class StorageWriter(storage.StorageWriter):
    """Writes one checkpoint at a time; it is committed by ``dcp.save`` as a whole, or not at all.

    Each rank writes its file durably into a hidden draft beside the target; the coordinator adds the metadata and the
    manifest, and gives the draft its name in one step. What had the name before is there until then. An error on any
    rank leaves nothing behind. With ``dcp.async_save`` as well.

    Args:
        path: the directory that the checkpoint becomes, on a filesystem that all ranks see, or an fsspec URL.
        step: of the training, for those who list and rank checkpoints.
        epoch: likewise, from 0.
        metrics: likewise, by name.
        storage_options: for a URL, as fsspec takes them; on each rank. Remembered for what lies beside:
            ``docs/object-storage.md``.

    Raises:
        ConfigurationError: if the path is none that a sharded checkpoint can have, a number is none, or the URL's
            filesystem does not know an option.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        step: int = 0,
        epoch: int = 0,
        metrics: Mapping[str, float] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Write nothing yet."""
        use_options(storage_options, path)
        self._options = None if storage_options is None else StorageOptions(storage_options)
        self._store, self._name = _where(path)
        numbers = {name: _number(name, value) for name, value in (metrics or {}).items()}
        self._facts = Facts(step=_count("step", step), epoch=_count("epoch", epoch), metrics=numbers, reason="dcp.save")
        self._draft: Draft | None = None
        self._values = Values()

    @property
    def checkpoint_id(self) -> str:
        """The directory that the checkpoint becomes."""
        return self._store.path(self._name)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a checkpoint; what an earlier one that failed has left is removed."""
        if checkpoint_id is not None:
            use_options(self._options, checkpoint_id)
            self._store, self._name = _where(checkpoint_id)
        self._drop()

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:  # noqa: FBT001 - DCP's own
        """Refuse what could not be committed as one."""
        del is_coordinator, args
        if not kwargs.get("use_collectives", True):
            msg = "`use_collectives`=False leaves each rank with a checkpoint of its own: holdfast commits all as one"
            raise ConfigurationError(msg)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Make the draft, and tell all ranks where it is."""
        self._draft = self._store.draft(self._name)
        mark = self._draft.mark
        weakref.finalize(self, self._draft.drop)  # nothing, once it is settled
        return [
            dataclasses.replace(plan, storage_data=_Target(self._draft.folder, shard_name(rank, mark)))
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[storage.WriteResult]]:
        """Write this rank's file; it is durable when the future is done, which it is on return.

        Raises:
            SaveError: if it cannot be written; nothing that was committed has changed.

        """
        results: list[storage.WriteResult] = []
        future: Future[list[storage.WriteResult]] = Future()
        if plan.items:
            mine: _Target = plan.storage_data
            try:
                parts = self._values.parts(planner, plan.items, {})
                with save_errors(self.checkpoint_id, commits=False):
                    stream = write_stream(self._store, f"{mine.folder}/{mine.file}", parts)
            except BaseException:
                self._drop()
                raise
            spans = {(part.name, part.at): span for part, span in zip(stream.parts, stream.spans, strict=True)}
            record = Record(mine.file, stream.size, stream.crc32)
            for item in plan.items:
                at = None if item.index.offset is None else tuple(item.index.offset)
                offset, length = spans[item.index.fqn, at]
                results.append(storage.WriteResult(item.index, length, _Place(record, offset, length)))
        future.set_result(results)
        return future

    def finish(self, metadata: Metadata, results: list[list[storage.WriteResult]]) -> None:
        """Commit.

        Raises:
            SaveError: if it cannot be; it says whether anything may have changed.

        """
        assert self._draft is not None  # noqa: S101 - DCP calls prepare_global_plan on this rank before
        places = [(result.index, result.storage_data) for mine in results for result in mine]
        records = {place.record.name: place.record for _, place in places}
        data = encode(metadata, ((index, at.record.name, at.offset, at.length) for index, at in places))
        facts = dataclasses.replace(
            self._facts, time=SystemClock().now().isoformat(timespec="milliseconds"), ranks=len(results)
        )
        try:
            with save_errors(self.checkpoint_id):
                settle(self._draft, facts, list(records.values()), extra={}, metadata=data, infos=metadata)
        finally:
            self._drop()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Tell whether this is a path, or a URL that fsspec knows."""
        return _is_place(checkpoint_id)

    def _drop(self) -> None:
        if self._draft is not None:
            self._draft.drop()
            self._draft = None


class StorageReader(storage.StorageReader):
    """Reads a sharded checkpoint, ours or plain DCP's, and checks what it reads.

    The metadata are read without running what is in them; every byte is compared with its digest where it has one
    (all of ours), and goes straight to where it belongs where it can; each shard is read once.

    Args:
        path: the directory, or its fsspec URL.
        allow: further classes that values which are no tensors may need.
        allow_unsafe: True runs whatever code such a value names: only for a checkpoint that you would run as a program.
        verify: whether to compare the digests.
        storage_options: as for ``StorageWriter``.

    Raises:
        ConfigurationError: if the URL's filesystem does not know an option.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        allow: Sequence[Any] = (),
        allow_unsafe: bool = False,
        verify: bool = True,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Read nothing yet."""
        use_options(storage_options, path)
        self._options = None if storage_options is None else StorageOptions(storage_options)
        self._path = os.fspath(path)
        self._allow, self._unsafe, self._verify = allow, allow_unsafe, verify
        self._resting: Resting | None = None

    @property
    def checkpoint_id(self) -> str:
        """The directory."""
        return self._path

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin a load."""
        if checkpoint_id is not None:
            use_options(self._options, checkpoint_id)
            self._path = os.fspath(checkpoint_id)
        self._resting = None

    def read_metadata(self) -> Metadata:
        """Return DCP's metadata.

        Raises:
            LoadError: if there are none, or they are damaged, or not to be trusted.

        """
        if self._resting is not None:
            return self._resting.metadata

        def look(resting: Resting) -> Metadata:
            self._resting = resting
            return resting.metadata

        return at_rest(self._path, look, verify=self._verify)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:  # noqa: FBT001 - DCP's own
        """Nothing is needed: the metadata are known."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Tell the coordinator which checkpoint this rank has found."""
        return dataclasses.replace(plan, storage_data=self._found().identity)

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """See that all ranks have found the same.

        Raises:
            LoadError: if they have not.

        """
        if len({plan.storage_data for plan in plans}) > 1:
            raise self._found().replaced()
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read this rank's part; it is there when the future is done, which it is on return.

        Raises:
            DamagedCheckpointError: naming the file and the tensor.
            UnsafeCheckpointError: if a value needs classes that were not allowed.
            LoadError: if another checkpoint took its name meanwhile.

        """
        Reading(self._found(), self._allow, allow_unsafe=self._unsafe).read(plan.items, planner)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Tell whether this is a path, or a URL that fsspec knows."""
        return _is_place(checkpoint_id)

    def _found(self) -> Resting:
        self.read_metadata()
        assert self._resting is not None  # noqa: S101 - the line above made it
        return self._resting


def _where(path: str | os.PathLike[str]) -> tuple[Store, str]:
    root, name = split_path(os.fspath(path))
    store = open_store(root)
    if not name or any(part.startswith(HIDDEN) for part in store.path(name).replace(os.sep, "/").split("/")):
        msg = f"{os.fspath(path)} is hidden: names with {HIDDEN} are of unfinished saves, which a sweep removes"
        raise ConfigurationError(msg)
    return store, name


def _is_place(path: str | os.PathLike[str]) -> bool:
    try:
        open_store(split_path(path)[0])
    except ConfigurationError:
        return False
    return True


def _count(what: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        msg = f"`{what}` is a whole number from 0, but got {value!r:.80}"
        raise ConfigurationError(msg)
    return value


def _number(name: object, value: Any) -> float:
    if isinstance(name, str) and not isinstance(value, (str, bytes)):
        with contextlib.suppress(TypeError, ValueError, RuntimeError, OverflowError):
            return float(value)
    msg = f"`metrics` are numbers by name, but got {value!r:.80} for {name!r:.80}"
    raise ConfigurationError(msg)
