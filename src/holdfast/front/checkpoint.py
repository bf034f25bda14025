"""One checkpoint: what it says of itself, what people say of it, and what can be done with it. Imports no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from holdfast import notes
from holdfast.clock import Clock, SystemClock
from holdfast.directories import read_manifest
from holdfast.errors import CheckpointNotFoundError, ConfigurationError, HoldfastError, LoadError, SaveError, printable
from holdfast.format.notes import NoteError
from holdfast.front.numbers import number
from holdfast.records import Change, Facts, Manifest, Note, Noted, TensorInfo
from holdfast.scanning import Found, look
from holdfast.storage import Store
from holdfast.storage.standing import stamp_number

if TYPE_CHECKING:  # these import torch
    import torch

    from holdfast.front.tensors import TensorStatistics

BY_HAND = "by hand"
FOREIGN = "foreign"


class Reasons(Protocol):
    """What knows why checkpoints are kept."""

    def of(self, checkpoint: Checkpoint) -> str:
        """Return why this one is."""
        ...

    def forget(self) -> None:
        """Take note that something was said of one of them."""
        ...


class Checkpoint:
    """One checkpoint. ``holdfast.open`` and ``holdfast.catalog`` return it.

    What is read of it is read when it is opened: its facts, and what people have said of it. Its manifest is read when
    it is asked for, and its tensors never by themselves. The methods that change something change what people say of
    it, in small files beside it; its own bytes are never touched.

    Attributes:
        name: relative to the directory that was asked for; of one that was opened by its path, to its run's.
        path: as other programs take it.
        size: in bytes.
        file_id: the same for two names that share their bytes; "" where that cannot be told.
        facts: what its manifest says; None if it has none, or it cannot be read.
        problem: why it cannot be read, or "".
        damaged: whether that is so because its bytes are not those that were saved.
        sharded: whether it is a directory of several files.
        stamp: another one when its content is, as the server's etag; "" where a listing does not tell.

    """

    def __init__(
        self,
        store: Store,
        found: Found,
        noted: Noted,
        reasons: Reasons,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Hold what was found."""
        self._clock = clock or SystemClock()
        self._store = store
        self._noted = noted
        self._reasons = reasons
        self._known = found.facts or Facts()
        self.name = found.name
        self.path = found.path
        self.size = found.size
        self.file_id = found.file_id
        self.facts = found.facts
        self.problem = found.problem
        self.damaged = found.damaged
        self.sharded = found.sharded
        self.stamp = found.stamp

    @property
    def role(self) -> str | None:
        """What it is to its run: ``"ranked"``, ``"last"``, ``"exception"``, ``"preempted"``.

        Or ``"by hand"`` for one that no rule had saved, ``"foreign"`` for one without a manifest, and None for one
        that was renamed or copied by hand.
        """
        if self.facts is None:
            return FOREIGN
        if not self._known.names:
            return BY_HAND
        return next((role for role, name in self._known.names.items() if f"/{self.name}".endswith(f"/{name}")), None)

    @property
    def folder(self) -> str:
        """The folder of its run, as the beginning of the name: "" or ending in a slash."""
        mine = self._known.names.get(self.role or "", "")
        return self.name[: len(self.name) - len(mine)] if mine else self.name[: self.name.rfind("/") + 1]

    @property
    def run(self) -> str:
        """The run's identifier, or ""."""
        return self._known.run

    @property
    def owner(self) -> str:
        """Which callback of the run has saved it, or ""."""
        return self._known.owner

    @property
    def step(self) -> int:
        """Finished optimizer steps; 0 if it does not say."""
        return self._known.step

    @property
    def epoch(self) -> int:
        """The epoch during which it was saved, from 0."""
        return self._known.epoch

    @property
    def sequence(self) -> int:
        """Its place in the order of its run's saves."""
        return self._known.sequence

    @property
    def time(self) -> datetime | None:
        """When it was saved, aware of its zone; None if it does not say."""
        try:
            time = datetime.fromisoformat(self._known.time)
        except ValueError:
            return None
        return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric of its state; one that was measured later counts instead of its own of the same name."""
        return {**self._known.metrics, **self._noted.metrics}

    @property
    def late_metrics(self) -> dict[str, float]:
        """The metrics that were added after the save."""
        return dict(self._noted.metrics)

    @property
    def tags(self) -> tuple[str, ...]:
        """The names that people have given it."""
        return self._noted.tags

    @property
    def notes(self) -> tuple[Note, ...]:
        """The texts that people have put beside it, oldest first."""
        return self._noted.notes

    @property
    def pinned(self) -> bool:
        """Whether it is kept whatever the rules say; True also while what was said of it cannot be read."""
        return self._noted.pinned

    @property
    def damaged_notes(self) -> tuple[str, ...]:
        """What was said of it and cannot be read, each as its file and why."""
        return self._noted.damaged

    @property
    def monitor(self) -> str | None:
        """The metric that it was ranked by."""
        monitor = self._known.policy.get("monitor")
        return monitor if isinstance(monitor, str) else None

    @property
    def mode(self) -> str:
        """Whether the lowest (``"min"``) or the highest (``"max"``) value of it is best."""
        return "max" if self._known.policy.get("mode") == "max" else "min"

    @property
    def score(self) -> float | None:
        """The value of that metric; None without one."""
        return self.metrics.get(self.monitor) if self.monitor is not None else None

    @property
    def kept(self) -> str:
        """Why its run keeps it, or would not; "" for a file that is no checkpoint of ours."""
        return self._reasons.of(self) if self.facts is not None else ""

    @property
    def manifest(self) -> Manifest | None:
        """The whole manifest, read now; None if it has none.

        Raises:
            CheckpointNotFoundError: if the file is gone.
            DamagedCheckpointError: if its manifest cannot be read.
            NewerFormatError: if a later holdfast wrote it.
            LoadError: if it may not be read, or is no file.

        """
        with reading_of(self.path):
            return read_manifest(self._store, self.name)

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Name, dtype, shape and record of each tensor, from the manifest; none without one. Raises as it does."""
        manifest = self.manifest
        return manifest.tensors if manifest is not None else ()

    def tag(self, *names: str) -> Checkpoint:
        """Give it names; return itself. Safe for any number of processes at once, as are all such methods.

        Raises:
            ConfigurationError: for what cannot be a tag (printable text without commas); or if it has no manifest.
            CheckpointNotFoundError: if the file is gone, or another checkpoint has taken its name.
            SaveError: if it could not be committed, or the checkpoint cannot be read.

        """
        return self._say(Change(tag=tuple(names)))

    def untag(self, *names: str) -> Checkpoint:
        """Take names from it; one that it does not have is no error. Returns itself; raises as ``tag``."""
        return self._say(Change(untag=tuple(names)))

    def pin(self) -> Checkpoint:
        """Keep it whatever the rules say, until it is unpinned. Returns itself; raises as ``tag``."""
        return self._say(Change(pin=True))

    def unpin(self) -> Checkpoint:
        """Leave it to the rules again. Returns itself; raises as ``tag``."""
        return self._say(Change(pin=False))

    def note(self, text: str) -> Checkpoint:
        """Put a text beside it. Returns itself; raises as ``tag``."""
        return self._say(Change(note=text))

    def add_metrics(self, metrics: Mapping[str, Any]) -> Checkpoint:
        """Add what was measured after the save: the ranking follows. Returns itself; raises as ``tag``.

        Args:
            metrics: numbers by name, NaN and infinities too. One of a name that the checkpoint has counts instead.

        """
        return self._say(Change(metrics={name: number(str(name), value) for name, value in metrics.items()}))

    def _say(self, change: Change) -> Checkpoint:
        """Commit a change; then look whether the checkpoint is still there, as another process may have removed it."""
        identity = self._identity()
        folders = notes.folders_of(self.name, self._known)
        change = replace(change, time=self._clock.now().isoformat(timespec="seconds"))
        # Whoever is about to remove it waits, where there are locks, and then sees what was said.
        with self._store.hold(self.name) if self._store.is_local else contextlib.nullcontext():
            try:
                written = notes.write(self._store, folders[0], identity, change, folders)
            except NoteError as error:
                raise ConfigurationError(str(error)) from error
            now = self._look()
        if now is not None:
            self._check_still_there(now, written, identity)
        self._noted = notes.read_one(self._store, folders, identity)
        self._reasons.forget()
        return self

    def _look(self) -> Found | None:
        """Return what its file says now; None where the server has the very one that was opened, by its etag."""
        if not self._store.is_local and self.stamp:
            now = self._store.stamp(self.name)
            if now is not None and now[1:] == (stamp_number(self.stamp),):
                return None
        return look(self._store, self.name)

    def _identity(self) -> str:
        """Return what identifies the save.

        Raises:
            ConfigurationError: if nothing does.
            SaveError: if it cannot be read.

        """
        identity = notes.identity(self._known)
        if self.problem:
            msg = f"nothing can be noted of {printable(self.path)}, as it cannot be read: {printable(self.problem)}"
            raise SaveError(msg, path=self.path)
        if not identity:
            msg = f"nothing can be noted of {printable(self.path)}: it has no manifest that says which save it is"
            raise ConfigurationError(msg)
        return identity

    def _check_still_there(self, now: Found, written: str, identity: str) -> None:
        """Raise an error if the checkpoint has gone since it was looked for; nothing is then left of what was said.

        What was said before stays: the save may be there under another name.
        """
        if now.facts is not None and notes.identity(now.facts) == identity:
            return
        if now.problem and self._store.exists(self.name):
            msg = f"{printable(self.path)} was noted, but it cannot be read any more: {printable(now.problem)}"
            raise SaveError(msg, path=self.path)
        self._store.remove(written)
        raise _gone(self.path)

    def verify(self, *, key: Any = None) -> Manifest | None:
        """Check every byte of it; return its manifest. As ``holdfast.verify``, which says what is raised."""
        with reading_of(self.path):
            manifest: Manifest | None = import_module("holdfast.engine").verify(self.path, key=key)
            return manifest

    def load(self, **words: Any) -> Any:
        """Load its state, as ``holdfast.load`` does with these words."""
        with reading_of(self.path):
            return import_module("holdfast.engine").load(self.path, **words)

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor without loading the rest, as ``holdfast.front.tensors.tensor``."""
        with reading_of(self.path):
            value: torch.Tensor = import_module("holdfast.front.tensors").tensor(self.path, name)
            return value

    def statistics(self, names: str | Collection[str] | None = None) -> list[TensorStatistics]:
        """Return what its tensors are like: least, greatest, mean, norm, NaNs. As ``holdfast.statistics``."""
        with reading_of(self.path):
            found: list[TensorStatistics] = import_module("holdfast.front.tensors").statistics(self.path, names)
            return found

    def diff(self, other: Checkpoint | str | os.PathLike[str]) -> Any:
        """Return what is different in another checkpoint, as ``holdfast.diff(self, other)``."""
        with reading_of(self.path):
            return import_module("holdfast").diff(self.path, os.fspath(other))

    def __fspath__(self) -> str:
        """Return the path: whatever takes a path takes a checkpoint."""
        return self.path

    def __repr__(self) -> str:
        """Return what tells it from others."""
        tags = f", tags={', '.join(self.tags)}" if self.tags else ""
        score = f", {self.monitor}={self.score:.5g}" if self.score is not None else ""
        what = self.problem or "no manifest"
        if self.facts is not None:
            what = f"step {self.step}, epoch {self.epoch}{score}"
        return f"<Checkpoint {printable(f'{self.path}: {what}{tags}')}{', pinned' if self.pinned else ''}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        html: str = import_module("holdfast.front.showing").checkpoint_html(self)
        return html


@contextlib.contextmanager
def reading_of(path: str) -> Iterator[None]:
    """Make errors of the system errors of ours."""
    try:
        yield
    except HoldfastError:
        raise
    except FileNotFoundError as error:
        msg = f"there is no checkpoint file {printable(path)}: {error.strerror or error}"
        raise CheckpointNotFoundError(msg) from error
    except OSError as error:
        msg = f"{printable(path)} cannot be read: {error.strerror or error}"
        raise LoadError(msg) from error


def _gone(path: str) -> CheckpointNotFoundError:
    msg = (
        f"{printable(path)} is gone: since it was looked for it was removed, or another checkpoint has taken its "
        "name. Nothing is noted of it. `holdfast ls` lists what there is"
    )
    return CheckpointNotFoundError(msg)
