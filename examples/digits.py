"""A small network on scikit-learn's handwritten digits, with three callbacks side by side.

    python examples/digits.py DIRECTORY

Run it again after any interruption: it goes on from the newest checkpoint that is whole.
"""

from __future__ import annotations

import logging
import sys
import warnings

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from holdfast import newest
from holdfast.lightning import ModelCheckpoint


class Digits(pl.LightningModule):
    """One hidden layer, from 8 x 8 pixels to ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        scores = self.net(batch[0])
        self.log("val_loss", cross_entropy(scores, batch[1]))
        self.log("val_acc", (scores.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def loaders() -> tuple[DataLoader, DataLoader]:
    """The digits in a fixed split: 1500 to train on, 297 to validate."""
    pixels, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels))
    train, valid = torch.utils.data.random_split(data, [1500, 297], torch.Generator().manual_seed(0))
    return DataLoader(train, batch_size=50), DataLoader(valid, batch_size=297)


def train(directory: str, epochs: int = 8, *further: pl.Callback) -> None:
    """Train to the end, from wherever the directory's newest whole checkpoint left off."""
    pl.seed_everything(0, verbose=False)
    callbacks = [
        ModelCheckpoint(directory, "best-{epoch}-{val_loss:.3f}", monitor="val_loss", save_top_k=3),
        ModelCheckpoint(directory, "{step}", every_n_train_steps=50, save_top_k=1),
        ModelCheckpoint(directory, save_top_k=0, save_last=True),
    ]
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, *further],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = newest(directory)
    print(f"   starting from {start or 'scratch'}")
    trainer.fit(Digits(), *loaders(), ckpt_path=start)
    print(f"   trained to step {trainer.global_step}")
    print(f"   best: {callbacks[0].best_model_path} (val_loss {callbacks[0].best_model_score:.4f})")


def quiet() -> None:
    """Leave out what Lightning says about machines and workers."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    quiet()
    train(sys.argv[1])
