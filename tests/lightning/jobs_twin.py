"""What the ranks do that train with the package ``pytorch_lightning``."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard

from holdfast.pytorch_lightning import ModelCheckpoint
from tests.support.lightning_models import loader


class Sharded(pl.LightningModule):
    """One layer, sharded over the ranks."""

    def configure_model(self):
        if not hasattr(self, "net"):
            self.net = torch.nn.Linear(4, 4)
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def train_and_resume(folder):
    """Fit for one epoch, and go on for another; return the last checkpoint of each."""
    lasts = []
    for epochs, path in ((1, None), (2, "last")):
        callback = ModelCheckpoint(folder, save_last=True)
        pl.Trainer(
            accelerator="cpu",
            devices=2,
            strategy=ModelParallelStrategy(2, 1),
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback],
        ).fit(Sharded(), loader(4), ckpt_path=path)
        lasts.append((callback.last_model_path, torch.load(f"{callback.last_model_path}/meta.pt")["global_step"]))
    return lasts
