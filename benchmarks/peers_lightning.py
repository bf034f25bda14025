"""Lightning's own ways of saving."""

from __future__ import annotations

import os

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from benchmarks.limits import sync
from benchmarks.saver import Saver, Variant
from benchmarks.states import Training


class LightningSave(Saver):
    """What ``Trainer.save_checkpoint`` does with a state that has been dumped."""

    durable = False

    def save(self) -> None:
        """Save."""
        path = self.next_path()
        TorchCheckpointIO().save_checkpoint(self.training.state(), path)
        if self.durable:
            sync(path)
            sync(os.path.dirname(path))
        self.retire()


class LightningSync(LightningSave):
    """The same, and an fsync after it."""

    durable = True


class LightningAsync(Saver):
    """``AsyncCheckpointIO``: clones, and a thread; its queue has no bound, so the save before is waited for."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._io = AsyncCheckpointIO(TorchCheckpointIO())

    def save(self) -> None:
        """Wait for the save before, clone, hand over."""
        self.wait()
        self.retire()
        self._io.save_checkpoint(self.training.state(), self.next_path())

    def wait(self) -> None:
        """End the thread, the one public way of waiting for it; the next save starts another."""
        self._io.teardown()


LIGHTNING = Variant("Lightning save_checkpoint", LightningSave, durable="no")
LIGHTNING_SYNC = Variant("Lightning save_checkpoint + fsync", LightningSync)
LIGHTNING_ASYNC = Variant("Lightning AsyncCheckpointIO", LightningAsync, durable="no")
