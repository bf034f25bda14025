"""A tiny model whose metrics are scripted, and a quiet Trainer, for either Lightning package."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Scripted(pl.LightningModule):
    """Logs ``val_loss`` from a script, one value per validation, and ``train_loss`` at every step."""

    def __init__(self, vals=(5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4, 0.3), *, log_val=True):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.vals = list(vals)
        self.log_val = log_val
        self.validations = 0

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        if self.log_val:
            self.log("val_loss", float(self.vals[min(self.validations, len(self.vals) - 1)]))

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.validations += 1

    def test_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def loader(batches=2, batch_size=2):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(batches * batch_size, 4, generator=generator)
    return DataLoader(TensorDataset(data), batch_size=batch_size)


def trainer(root, *callbacks, **options):
    defaults = {
        "default_root_dir": str(root),
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
        "callbacks": list(callbacks),
    }
    return pl.Trainer(**{**defaults, **options})
