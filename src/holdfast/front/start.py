"""Where a plain training loop begins, and what was passed over on the way there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was passed over on the way to the newest whole one.

    Attributes:
        path: the file, by the name that it had.
        reason: what is wrong with it: for a damaged one the record and the problem.
        aside: where it was set aside, or "" if it lies where it lay.

    """

    path: str
    reason: str
    aside: str = ""

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.path}: {self.reason}; " + (f"set aside as {self.aside}" if self.aside else "left where it is")


@dataclass(frozen=True)
class Start:
    """Where training begins; as text, a report of a few lines.

    Attributes:
        epoch: the first epoch to run, from 0.
        step: optimizer steps already finished.
        batches: batches of that epoch already trained on; ``remaining`` skips them.
        path: the checkpoint it resumed from, or None for a fresh start.
        tier: where that was found: ``"local"``, in the directory, or ``"mirror"``, from which it was fetched; None
            for a fresh start, and for a checkpoint that was asked for by its path.
        reason: why this one, for people.
        missed: what could not be restored; empty when everything was.
        skipped: the checkpoints that were passed over on the way, newest first, those whose age cannot be
            read behind them.
        restored: what was put back: ``"model"``, ``"optimizer 0"``, ``"lr_scheduler 0"``, the names of what
            is ``stateful``, ``"random number generators"``, ``"loop position"``.

    """

    epoch: int = 0
    step: int = 0
    batches: int = 0
    path: str | None = None
    tier: str | None = None
    reason: str = "a fresh start"
    missed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    restored: tuple[str, ...] = ()

    def remaining(self, loader: Iterable[Any], epoch: int) -> Iterator[Any]:
        """Iterate over a loader, in the first epoch without the batches already trained on."""
        return islice(iter(loader), self.batches if epoch == self.epoch else 0, None)

    def __str__(self) -> str:
        """Return the report: where training begins, what was restored and what not, what was passed over."""
        lines = [f"training begins at step {self.step}, epoch {self.epoch}: {self.reason}"]
        if self.path is not None:
            lines.append(f"  restored: {', '.join(self.restored)}")
        if self.missed:
            lines.append(f"  not restored: {', '.join(self.missed)}")
        return "\n".join([*lines, *(f"  passed over: {item}" for item in self.skipped)])
