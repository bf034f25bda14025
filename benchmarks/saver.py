"""What every way of saving looks like to the measurements."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.states import Training


class Saver(ABC):
    """One way of saving, open on a training and a folder of its own.

    Args:
        training: whose state is saved.
        folder: an existing folder for this saver alone.
        retain: keep the newest checkpoint only, as part of the saving; otherwise all, until ``clean``.

    """

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        self.training = training
        self.folder = folder
        self.retain = retain
        self.asked = 0
        self._kept: list[str] = []

    @abstractmethod
    def save(self) -> None:
        """Save; on return, training may go on."""

    def fence(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait until the optimizer may change the state."""

    def wait(self) -> None:  # noqa: B027 - the synchronous ones are done
        """Wait until the newest save is complete."""

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what is held between saves."""

    @property
    def committed(self) -> int:
        """How many saves have been completed, once waited for."""
        return self.asked

    def clean(self) -> None:
        """Remove what was saved, outside of any timing."""
        for name in os.listdir(self.folder):
            remove(os.path.join(self.folder, name))
        self._kept = []

    def next_path(self) -> str:
        """Return a new path for each save."""
        self.asked += 1
        path = os.path.join(self.folder, f"{self.asked}.ckpt")
        self._kept.append(path)
        return path

    def retire(self) -> None:
        """Drop all but the newest checkpoint, which is complete, if that is asked for."""
        while self.retain and len(self._kept) > 1:
            remove(self._kept.pop(0))


@dataclass(frozen=True)
class Variant:
    """A way of saving that is not open yet.

    Attributes:
        name: what the tables call it.
        start: opens it; called as ``start(training, folder, retain=...)``.
        durable: whether what it calls complete survives a power cut: yes, nearly or no.
        overlapped: the copy goes on during the next forward and backward; a fence waits for it.
        warmups: saves after which its memory and files are those of every later save.
        own_training: it changes where the state lives, and needs a training that no other uses.

    """

    name: str
    start: Callable[..., Saver]
    durable: str = "yes"
    overlapped: bool = False
    warmups: int = 1
    own_training: bool = False


def remove(path: str) -> None:
    """Remove a file or a folder; one that is gone is no error."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)
