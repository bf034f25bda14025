"""Checkpoints of a short real training with all that makes states hard: ties, views, odd types, moments, averages."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

import holdfast.lightning
from tests.support.lightning_models import loader, trainer


class Real(pl.LightningModule):
    """Tied weights, bfloat16 and complex parameters, strided views of one storage, an empty buffer, batch norm."""

    def __init__(self, width=4, name="real"):
        super().__init__()
        self.save_hyperparameters()
        self.first = torch.nn.Linear(width, width)
        self.tied = torch.nn.Linear(width, width)
        self.tied.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(width)
        self.low = torch.nn.Parameter(torch.ones(width, dtype=torch.bfloat16))
        self.phase = torch.nn.Parameter(torch.ones(width, dtype=torch.complex64))
        table = torch.arange(24.0).reshape(4, 6)
        self.register_buffer("even", table[:, ::2])
        self.register_buffer("odd", table[:, 1::2])
        self.register_buffer("turned", table.t())
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            self.even.add_(0.25)
        hidden = self.norm(self.tied(self.first(batch[0])))
        loss = (hidden * self.low.float() * self.phase.real).pow(2).mean() + self.phase.imag.add(1).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)}


def train(folder, kind, epochs=3):
    """Fit the model; return the paths of the checkpoints, one an epoch, oldest first.

    ``kind`` says who saves: ``stock`` is Lightning's own callback, ``holdfast`` ours, ``ema`` ours beside a moving
    average of the weights.
    """
    torch.manual_seed(0)
    words = {"dirpath": str(folder), "filename": "{epoch}", "save_top_k": -1, "every_n_epochs": 1}
    saver = (ModelCheckpoint if kind == "stock" else holdfast.lightning.ModelCheckpoint)(**words)
    others = [EMAWeightAveraging(decay=0.5)] if kind == "ema" else []
    made = trainer(folder, saver, *others, max_epochs=epochs, logger=False)
    made.fit(Real(), loader())
    return [str(folder / f"epoch={epoch}.ckpt") for epoch in range(epochs)]
