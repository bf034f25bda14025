"""Where a plain training loop begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any


@dataclass(frozen=True)
class Start:
    """Where training begins.

    Attributes:
        epoch: the first epoch to run, from 0.
        step: optimizer steps already finished.
        batches: batches of that epoch already trained on; ``remaining`` skips them.
        path: the checkpoint it resumed from, or None for a fresh start.
        reason: why this one, for people.
        missed: what could not be restored; empty when everything was.

    """

    epoch: int = 0
    step: int = 0
    batches: int = 0
    path: str | None = None
    reason: str = "a fresh start"
    missed: tuple[str, ...] = ()

    def remaining(self, loader: Iterable[Any], epoch: int) -> Iterator[Any]:
        """Iterate over a loader, in the first epoch without the batches already trained on."""
        return islice(iter(loader), self.batches if epoch == self.epoch else 0, None)
