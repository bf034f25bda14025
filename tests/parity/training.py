"""Runs a configuration on the real Trainer with one class of callback."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import model_checkpoint as stock_module
from torch.utils.data import DataLoader, TensorDataset

from tests.parity.configurations import Configuration
from tests.parity.outcome import Outcome, plain
from tests.support.lightning_models import trainer

MISSING = "could not find the monitored key"


class Network(pl.LightningModule):
    """Four weights, and metrics from a script."""

    def __init__(self, config: Configuration):
        super().__init__()
        torch.manual_seed(config.seed)
        self.layer = torch.nn.Linear(4, 1)
        self.config = config
        self.automatic_optimization = config.steps_by_hand is None
        self.batches = 0
        self.validations = 0

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).pow(2).mean()
        values = self.config.train_losses
        self.log("train_loss", torch.tensor(values[self.batches % len(values)]))
        self.batches += 1
        if not self.automatic_optimization:
            self.manual_backward(loss)
            for _ in range(self.config.steps_by_hand):
                self.optimizers().step()
            self.optimizers().zero_grad()
        return loss

    def validation_step(self, batch, batch_idx):
        values = self.config.val_losses
        self.log("val_loss", torch.tensor(values[self.validations % len(values)]))

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.validations += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.5)


@dataclass(frozen=True)
class Run:
    """What one training left behind.

    Attributes:
        outcome: the files and attributes, to compare with a prediction.
        weights: the digest of the weights in each file, by name, and of the network at the end (as "").
        contents: the keys of each file, by name.

    """

    outcome: Outcome
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    contents: dict[str, frozenset[str]] = field(default_factory=dict)


def train(config: Configuration, callback_class: type, root: Path) -> Run:
    """Run the script with this class of ModelCheckpoint; its directory is ``root/checkpoints``."""
    network = Network(config)
    callback = callback_class(**config.words)
    stock_module.warning_cache.clear()  # Lightning warns once in each process
    raised = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner = trainer(root, callback, **config.trainer_words)
        try:
            runner.fit(network, loader(config.batches), loader(1) if config.validates else None)
        except MisconfigurationException as error:
            if MISSING not in str(error):
                raise
            raised = True
    warned = any(MISSING in str(warning.message) for warning in caught)
    return _look(callback, network, root / "checkpoints", raised=raised, warned=warned)


def loader(batches: int) -> DataLoader[Any]:
    """The same few numbers in each run."""
    data = torch.linspace(-1, 1, batches * 8).reshape(batches * 2, 4)
    return DataLoader(TensorDataset(data), batch_size=2)


def _look(callback: Any, network: Network, folder: Path, *, raised: bool, warned: bool) -> Run:
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    states = {name: torch.load(path, weights_only=True) for name, path in files.items()}

    def name(path: str) -> str:
        return str(Path(path).relative_to(folder.resolve())) if path else ""

    outcome = Outcome(
        files={name: state["global_step"] for name, state in states.items()},
        best=name(callback.best_model_path),
        best_score=plain(callback.best_model_score),
        best_k={name(path): plain(score) for path, score in callback.best_k_models.items()},
        kth=name(callback.kth_best_model_path),
        kth_value=plain(callback.kth_value),
        current_score=plain(callback.current_score),
        last=name(callback.last_model_path),
        raised=raised,
        warned=warned,
    )
    weights = {name: _digest(state["state_dict"]) for name, state in states.items()}
    contents = {name: frozenset(state) for name, state in states.items()}
    return Run(outcome, weights | {"": _digest(network.state_dict())}, contents)


def _digest(state: dict[str, torch.Tensor]) -> tuple[float, ...]:
    return tuple(number for tensor in state.values() for number in tensor.flatten().tolist())
