"""One rank of ``benchmarks.beats``."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

import holdfast
import holdfast.lightning
from benchmarks import measure
from holdfast import EverySeconds, EverySteps

STEP = 0.005
NEVER = 10**9
HOUR = timedelta(hours=1)


class Watch:
    """A clock that goes while its owner trains, and stands still while the others have their turn."""

    def __init__(self) -> None:
        self.seconds, self.since = 0.0, 0.0

    def start(self) -> None:
        """Go on."""
        self.since = time.monotonic()

    def stop(self) -> None:
        """Stand still."""
        self.seconds, self.since = self.monotonic(), 0.0

    def monotonic(self) -> float:
        """Return the seconds for which it went."""
        return self.seconds + (time.monotonic() - self.since if self.since else 0.0)

    def now(self) -> datetime:
        """Return the wall time."""
        return datetime.now(timezone.utc)


class Model(pl.LightningModule):
    """A model of two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """Return the loss."""
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Probe(Callback):
    """In the middle of a fit, has each variant take many steps, in turn, all ranks together."""

    def __init__(self, folder: str, steps: int, rounds: int) -> None:
        self.folder, self.steps, self.rounds = folder, steps, rounds
        self.times: dict[str, list[float]] = {}
        self.watches = {name: Watch() for name in ("counts", "signals", "time", "hook counts", "hook time")}
        ours = holdfast.lightning.ModelCheckpoint
        self.hooks: dict[str, Callback] = {
            "Lightning's ModelCheckpoint: counts": ModelCheckpoint(folder, every_n_train_steps=NEVER),
            "Lightning's ModelCheckpoint: train_time_interval": ModelCheckpoint(folder, train_time_interval=HOUR),
            "holdfast's ModelCheckpoint: counts, signals": ours(
                folder, every_n_train_steps=NEVER, clock=self.watches["hook counts"]
            ),
            "holdfast's ModelCheckpoint: train_time_interval, signals": ours(
                folder, train_time_interval=HOUR, clock=self.watches["hook time"]
            ),
        }

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, once."""
        if batch_idx != 5:
            return
        actions: dict[str, tuple[Callable[[], None], Watch]] = {"an empty function": (empty, Watch())}
        model = torch.nn.Linear(1, 1)
        for name, words in {
            "counts": {"save_when": EverySteps(NEVER), "save_on_signal": False, "deadline": None},
            "signals": {"save_when": EverySteps(NEVER)},
            "time": {"save_when": EverySeconds(3600)},
        }.items():
            watch = self.watches[name]
            ckpt = holdfast.Checkpointer(os.path.join(self.folder, name), model=model, clock=watch, **words)
            actions[f"ckpt.step(): {name}{', signals' if name == 'time' else ''}"] = (ckpt.step, watch)
        keys = {"counts, signals": "hook counts", "interval, signals": "hook time"}
        for name, callback in self.hooks.items():
            key = next((key for ending, key in keys.items() if name.endswith(ending)), "")
            hook = callback.on_train_batch_end
            actions[name] = (
                lambda hook=hook: hook(trainer, pl_module, outputs, batch, batch_idx),
                self.watches.get(key, Watch()),
            )
        for number in range(self.rounds + 1):
            for name, (action, watch) in measure.turn(list(actions.items()), number):
                seconds = self._block(action, watch)
                if number:  # the first lets each find its pace
                    self.times.setdefault(name, []).append(seconds)

    def _block(self, action: Callable[[], None], watch: Watch) -> float:
        """Return the seconds that the action takes after a step, on average."""
        shared, spent = torch.zeros(1), 0.0
        watch.start()
        for _ in range(self.steps):
            time.sleep(STEP)
            dist.all_reduce(shared)
            begun = time.perf_counter()
            action()
            spent += time.perf_counter() - begun
        watch.stop()
        return spent / self.steps


def empty() -> None:
    """Do nothing."""


def main(folder: str, out: str, steps: str, rounds: str) -> None:
    """Fit, and write what rank 0 has measured."""
    probe = Probe(folder, int(steps), int(rounds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            strategy="ddp",
            devices=int(os.environ["WORLD_SIZE"]),
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*probe.hooks.values(), probe],
        )
        trainer.fit(Model(), DataLoader(torch.ones(8 * int(os.environ["WORLD_SIZE"]), 1), batch_size=1))
    if trainer.is_global_zero:
        with open(out, "w") as file:
            json.dump(probe.times, file)


if __name__ == "__main__":
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    main(*sys.argv[1:])
