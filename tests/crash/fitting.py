"""A training under Lightning that is the same however often it is interrupted: its loader knows where it stands."""

from __future__ import annotations

import warnings

import lightning.pytorch as pl
import torch

import holdfast
from holdfast.lightning import ModelCheckpoint
from tests.crash.training import BATCHES, EPOCHS, batches, digest


class Loader:
    """The same batches in each epoch, with a state that Lightning saves and restores in the middle of one."""

    def __init__(self):
        self.done = 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        self.done %= BATCHES
        for batch in batches(0)[self.done :]:
            self.done += 1
            yield batch

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


class Model(pl.LightningModule):
    """A small network with an optimizer that has moments."""

    def __init__(self, tell):
        super().__init__()
        torch.manual_seed(7)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.tell = tell

    def training_step(self, batch, _):
        return torch.nn.functional.mse_loss(self.net(batch), batch.sum(1, keepdim=True))

    def on_train_batch_start(self, batch, batch_idx):
        self.tell({"step": self.trainer.global_step})

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


def fit(folder, tell, epochs=EPOCHS, **words):
    """Train to the end from wherever the folder says."""
    warnings.simplefilter("ignore")
    model = Model(tell)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, **words)],
    )
    path = holdfast.newest(folder)
    tell({"resumed": path})
    trainer.fit(model, Loader(), ckpt_path=path)
    tell({"step": trainer.global_step, "digest": digest(model.net)})
