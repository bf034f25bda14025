"""Models and callbacks that drive the Trainer into the corners that the tests are about."""

from __future__ import annotations

import os

import lightning.pytorch as pl
import pytest
import torch

from tests.support.lightning_models import Scripted


class Probe(pl.Callback):
    """Calls a function, with the Trainer, at each hook that is named."""

    def __init__(self, **hooks):
        for hook, look in hooks.items():
            setattr(self, hook, lambda trainer, *_, look=look: look(trainer))


class CrashAt(pl.Callback):
    """Raises after a batch, once this many optimizer steps are finished."""

    def __init__(self, step, error=None):
        self.step = step
        self.error = error or RuntimeError("scripted")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise self.error


class Manual(Scripted):
    """Manual optimization, with one optimizer or several, each stepped once a batch."""

    def __init__(self, *arguments, optimizers=1, **options):
        super().__init__(*arguments, **options)
        self.automatic_optimization = False
        self.number = optimizers

    def training_step(self, batch, batch_idx):
        chosen = self.optimizers()
        for optimizer in chosen if isinstance(chosen, list) else [chosen]:
            loss = self.layer(batch[0]).pow(2).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("train_loss", loss)

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.01 * (i + 1)) for i in range(self.number)]


class Whole(Scripted):
    """Logs in every stage."""

    def test_step(self, batch, batch_idx):
        self.log("val_loss", 1.0)

    def predict_step(self, batch, batch_idx):
        return batch


def forbidden_folder(folder):
    """A folder below which nothing may be written, for root either; skips where there is none."""
    if os.geteuid() == 0:
        place = "/sys/holdfast"
    else:
        place = str(folder / "forbidden")
        os.mkdir(place, mode=0o500)
        place += "/checkpoints"
    try:
        os.mkdir(place)
    except PermissionError:
        return place
    os.rmdir(place)
    pytest.skip("there is no folder that this user may not write")
