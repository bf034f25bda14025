"""The part of both front doors with which a training says something of its checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from holdfast.clock import Clock
from holdfast.errors import HoldfastError, SaveError
from holdfast.front.catalog import open_checkpoint
from holdfast.front.checkpoint import Checkpoint
from holdfast.ranks import ranks_here


class NoteWords:
    """Pins, tags, notes and late metrics, by the path of a committed checkpoint.

    Call each on every rank: rank 0 writes. What is pinned is kept from then on; a score counts from the next save on.
    """

    def tag(self, path: str | os.PathLike[str], *names: str) -> None:
        """Give a checkpoint names.

        Raises:
            CheckpointNotFoundError: if there is none at the path.
            ConfigurationError: for what cannot be a tag (printable text without commas); or if it has no manifest.
            SaveError: if it could not be committed.

        """
        self._say(path, lambda checkpoint: checkpoint.tag(*names))

    def untag(self, path: str | os.PathLike[str], *names: str) -> None:
        """Take names from a checkpoint. Raises as ``tag``."""
        self._say(path, lambda checkpoint: checkpoint.untag(*names))

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Keep a checkpoint whatever the rules say, until it is unpinned. Raises as ``tag``."""
        self._say(path, lambda checkpoint: checkpoint.pin())

    def unpin(self, path: str | os.PathLike[str]) -> None:
        """Leave a checkpoint to the rules again. Raises as ``tag``."""
        self._say(path, lambda checkpoint: checkpoint.unpin())

    def note(self, path: str | os.PathLike[str], text: str) -> None:
        """Put a text beside a checkpoint. Raises as ``tag``."""
        self._say(path, lambda checkpoint: checkpoint.note(text))

    def add_metrics(self, path: str | os.PathLike[str], metrics: Mapping[str, Any]) -> None:
        """Add what was measured after the save to a checkpoint: the ranking follows. Raises as ``tag``."""
        self._say(path, lambda checkpoint: checkpoint.add_metrics(metrics))

    def _say(self, path: str | os.PathLike[str], say: Callable[[Checkpoint], Checkpoint]) -> None:
        def leading() -> None:
            try:
                say(open_checkpoint(path, clock=self._note_clock()))
            except HoldfastError:
                raise
            except OSError as error:  # an answer for the other ranks, too
                msg = f"nothing could be said of {os.fspath(path)}: {error}"
                raise SaveError(msg, path=os.fspath(path), errno=error.errno) from error

        ranks_here().agree(leading)

    def _note_clock(self) -> Clock:
        raise NotImplementedError
