"""Trainings under Lightning that are killed between a commit and the removal that it allows."""

from __future__ import annotations

import os
import signal

from holdfast.lightning import CheckpointIO, ModelCheckpoint
from tests.support.lightning_cases import fit


class Dies(CheckpointIO):
    """Killed where a checkpoint whose name ends so is to be removed."""

    def __init__(self, ending):
        super().__init__()
        self.ending = ending

    def remove_checkpoint(self, path):
        if path.endswith(self.ending):
            os.kill(os.getpid(), signal.SIGKILL)
        super().remove_checkpoint(path)


def before_the_removal(folder):
    """Train two epochs, of which only the better one is kept."""
    cb = ModelCheckpoint(folder, monitor="val_loss", save_top_k=1)
    fit(os.path.dirname(folder), cb, vals=[5, 4], max_epochs=2, plugins=[Dies("")])


def before_the_old_last_goes(folder, save_top_k):
    """The same with a ``last`` whose name has the epoch in it, so that each replaces the one before."""
    cb = ModelCheckpoint(folder, monitor="val_loss", save_top_k=save_top_k, save_last=True)
    cb.CHECKPOINT_NAME_LAST = "{epoch}-last"
    fit(os.path.dirname(folder), cb, vals=[5, 4], max_epochs=2, plugins=[Dies("-last.ckpt")])
