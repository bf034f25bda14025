"""Lightning's official extension point for checkpoint files, without importing Lightning.

``holdfast.lightning.CheckpointIO`` and its twin combine this with the ``CheckpointIO`` of their package.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from holdfast.errors import SaveError
from holdfast.front.opening import load
from holdfast.front.saving import (
    Behind,
    Flight,
    Saver,
    begin,
    globals_of,
    lease,
    permitting,
    plain_facts,
    release,
    remove_path,
    save_path,
    sweep,
    warm,
)
from holdfast.front.sharded import ShardedSaver, release_shards, shards_saver
from holdfast.records import Facts

log = logging.getLogger("holdfast")


class Expectation:
    """What a callback says of the file it is about to have written, and what became of it."""

    def __init__(self, path: str, facts: Facts, behind: Behind | None) -> None:
        """Wait for a save to this path."""
        self.path = path
        self.facts = facts
        self.behind = behind
        self.error: SaveError | None = None
        self.flight: Flight | None = None
        self.saver: Saver | ShardedSaver | None = None


class CheckpointIOCore:
    """Writes durable, verified checkpoints and loads only whole ones.

    Args:
        verify: check every byte of a file before it is loaded.
        allow: classes and functions that the safe loader may use, for checkpoints whose
            hyperparameters need them.

    """

    def __init__(self, *, verify: bool = True, allow: Sequence[Any] = ()) -> None:
        """Remember the choices; nothing is opened."""
        self.verify = verify
        self.allow = tuple(allow)
        self._expected: Expectation | None = None
        self._trusted: tuple[object, ...] = ()
        self._swept: set[str] = set()
        self._saver: Saver | None = None
        self._shards: ShardedSaver | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process."""
        return {**self.__dict__, "_expected": None, "_trusted": (), "_swept": set(), "_saver": None, "_shards": None}

    @contextlib.contextmanager
    def expecting(self, path: str, facts: Facts, behind: Behind | None = None) -> Iterator[Expectation]:
        """Save to this path with these facts, and keep an error instead of raising it.

        With ``behind`` the save is only begun.

        The error is kept because the other ranks are already waiting at a barrier behind the save.
        """
        self._expected = Expectation(path, facts, behind)
        if behind is not None:
            behind.house(self._open_saver(behind.mode.images))
        try:
            yield self._expected
        finally:
            self._expected = None

    def expected_at(self, path: str) -> Expectation | None:
        """Return what a callback expects at a path, if any does."""
        expected = self._expected
        return expected if expected is not None and expected.path == path else None

    def trust(self, live: Sequence[object]) -> None:
        """Let the safe loader build what these objects of the running program are made of."""
        self._trusted = tuple(live)

    def save_checkpoint(
        self,
        checkpoint: Mapping[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,
    ) -> None:
        """Commit a checkpoint: on return it survives a power cut.

        But for those of a ``ModelCheckpoint`` with ``async_save``: on return the state is taken, and the
        callback follows the rest.

        Raises:
            TypeError: if ``storage_options`` are given: an fsspec URL has its own configuration.
            SaveError: naming the path and the cause; what was committed before is untouched.

        """
        if storage_options is not None:
            msg = (
                f"`storage_options` (values not shown) cannot be passed through the Trainer to "
                f"{type(self).__name__}: set them in fsspec's configuration"
            )
            raise TypeError(msg)
        self._sweep_once(path)
        expected = self.expected_at(os.fspath(path))
        if expected is None:
            save_path(path, checkpoint, plain_facts(checkpoint, reason="requested", kind="lightning"))
            return
        try:
            if expected.behind is None:
                save_path(path, checkpoint, expected.facts)
            else:
                expected.saver = self._open_saver(expected.behind.mode.images)
                expected.flight = begin(expected.saver, checkpoint, expected.facts, expected.behind)
        except SaveError as error:
            expected.error = error

    def warm(self, model: object, optimizers: Iterable[object], images: int) -> None:
        """Have the memory for saves behind the training's back ready before the first is due."""
        warm(lambda: self._open_saver(images), model, optimizers)

    def open_shards(self, images: int) -> ShardedSaver:
        """Return what saves shards behind the training, on every rank."""
        if self._shards is None:
            self._shards = shards_saver(self, images)
        self._shards.allow(images)
        return self._shards

    def tidy(self, call: Callable[[], None], problem: str) -> None:
        """Do what may take its time behind the training's back; an ``OSError`` becomes a warning."""
        self._open_saver(1).tidy(call, problem)

    def permitted(self) -> AbstractContextManager[None]:
        """Let torch's safe loader build what a checkpoint of this run may hold, and what the user allows."""
        return permitting(self.allowed)

    @property
    def allowed(self) -> list[Any]:
        """What the safe loader may build beside plain values."""
        return [*self.allow, *globals_of(self._trusted)]

    def _open_saver(self, images: int) -> Saver:
        if self._saver is None:
            self._saver = lease(self, images)
        return self._saver

    def _sweep_once(self, path: str | os.PathLike[str]) -> None:
        """Clear away, before the first save into a folder, what an interrupted save has left there."""
        folder = os.path.dirname(os.fspath(path))
        if folder not in self._swept:
            self._swept.add(folder)
            for name in sweep(folder):
                log.info("removed %s, which an interrupted save had left behind in %s", name, folder)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: FBT001 - Lightning's signature
    ) -> dict[str, Any]:
        """Load a checkpoint that is whole. ``weights_only=None`` means True: no code is run.

        Raises:
            CheckpointNotFoundError: if there is nothing at the path.
            DamagedCheckpointError: naming the damaged record.
            UnsafeCheckpointError: naming the classes to allow.

        """
        checkpoint: dict[str, Any] = load(
            path,
            map_location="cpu" if map_location is None else map_location,
            weights_only=weights_only is not False,
            verify=self.verify,
            allow=self.allowed,
        )
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint; one that is gone is no error."""
        remove_path(path)
        log.debug("Removed checkpoint: %s", path)

    def teardown(self) -> None:
        """Wait until what was begun is committed, and give the memory back."""
        if self._shards is not None:
            release_shards(self, self._shards)
            self._shards = None
        if self._saver is not None:
            release(self, self._saver)
            self._saver = None
