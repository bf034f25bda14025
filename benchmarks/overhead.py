"""What a step costs on which nothing is saved: python -m benchmarks.overhead [--quick].

In a plain loop, and under Lightning: the hook itself, called many times from inside a real fit, and, as a
cross check, whole fits of many small batches.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

import holdfast.lightning
from benchmarks import measure, ours, plots, report
from benchmarks.options import Options, parse
from benchmarks.report import Column, Row, Rows
from benchmarks.states import TINY, Training

COLUMNS = (Column("seconds", "us a step", 3, 1e6, quartiles=True),)
NEVER = 10**9
# What the callback is told, and how many metrics the model logs.
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "no monitor": ({"every_n_train_steps": NEVER}, 0),
    "a monitor, 100 metrics": ({"every_n_train_steps": NEVER, "monitor": "metric_0"}, 100),
    "a missing monitor, 100 metrics": ({"every_n_train_steps": NEVER, "monitor": "missing"}, 100),
    "a missing monitor at a step that is due, 100 metrics": ({"every_n_train_steps": 1, "monitor": "missing"}, 100),
}
CLASSES: dict[str, type[Callback]] = {
    "Lightning's ModelCheckpoint": ModelCheckpoint,
    "holdfast's ModelCheckpoint": holdfast.lightning.ModelCheckpoint,
}


class Small(pl.LightningModule):
    """A model of two numbers that logs as many metrics as asked."""

    def __init__(self, metrics: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.metrics = {f"metric_{number}": torch.tensor(float(number)) for number in range(metrics)}

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        """Log, and return the loss."""
        if self.metrics:
            self.log_dict(self.metrics)
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Probe(Callback):
    """In the middle of a fit, calls the hook of each callback many times, in turn."""

    def __init__(self, probed: dict[str, Callback], calls: int, rounds: int) -> None:
        self.probed, self.calls, self.rounds = probed, calls, rounds
        self.times: dict[str, list[float]] = {name: [] for name in probed}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, once."""
        if batch_idx != 20:
            return
        for number in range(self.rounds):
            for name, callback in measure.turn(list(self.probed.items()), number):
                hook = callback.on_train_batch_end
                start = time.perf_counter()
                for _ in range(self.calls):
                    hook(trainer, pl_module, outputs, batch, batch_idx)
                self.times[name].append((time.perf_counter() - start) / self.calls)


def main(options: Options) -> None:
    """Measure the plain loop, the hook and whole fits."""
    scale = 20 if options.quick else 1
    groups: dict[str, object] = {}
    with measure.workplace(options.folder) as folder:
        groups["plain loop"] = plain(folder, 400_000 // scale, options.rounds)
        for case in CASES:
            groups[f"hook: {case}"] = hooks(case, folder, 4000 // scale, options.rounds)
        groups["whole fit"] = fits(folder, 2000 // scale, options.rounds)
    report.write(options, "overhead", groups, rounds=options.rounds)
    plots.overhead(options, groups)


def plain(folder: str, calls: int, rounds: int) -> dict[str, object]:
    """Time ``ckpt.step()`` in a loop, and a method that does nothing."""
    ckpt = ours.idle(folder, Training(TINY))
    actions: dict[str, Callable[[], None]] = {"an empty function": empty, "ckpt.step()": ckpt.step}
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds):
        for name, action in measure.turn(list(actions.items()), number):
            start = time.perf_counter()
            for _ in range(calls):
                action()
            times[name].append((time.perf_counter() - start) / calls)
    ckpt.close()
    return shown("a step of a plain loop on which nothing is saved", times)


def hooks(case: str, folder: str, calls: int, rounds: int) -> dict[str, object]:
    """Time the callbacks' hook in the middle of a fit."""
    words, metrics = CASES[case]
    probed = {name: make(dirpath=f"{folder}/{name[:4]}", **words) for name, make in CLASSES.items()}
    probe = Probe(probed, calls, rounds)
    fit([*probed.values(), probe], metrics, 22, folder)
    return shown(f"the hook of a batch on which nothing is saved: {case}", probe.times)


def fits(folder: str, batches: int, rounds: int) -> dict[str, object]:
    """Time whole fits, with each callback and with none."""
    makers: dict[str, Callable[[], list[Callback]]] = {"no callback": list}
    for name, make in CLASSES.items():
        makers[name] = lambda make=make: [make(dirpath=folder, every_n_train_steps=NEVER)]
    times: dict[str, list[float]] = {name: [] for name in makers}
    for number in range(rounds):
        for name, maker in measure.turn(list(makers.items()), number):
            start = time.perf_counter()
            fit(maker(), 0, batches, folder)
            times[name].append((time.perf_counter() - start) / batches)
    return shown("a batch of a whole fit", times)


def fit(callbacks: list[Callback], metrics: int, batches: int, folder: str) -> None:
    """Fit a small model over this many batches."""
    data = DataLoader(torch.ones(batches, 1), batch_size=None)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=any(type(callback) in CLASSES.values() for callback in callbacks),
            callbacks=callbacks,
        ).fit(Small(metrics), data)


def shown(title: str, times: dict[str, list[float]]) -> dict[str, object]:
    """Print a table, and return it."""
    rows: Rows = {name: _row(values) for name, values in times.items()}
    report.show(title, rows, COLUMNS)
    return {"rows": rows}


def _row(values: list[float]) -> Row:
    return {"seconds": measure.summary(values)}


def empty() -> None:
    """Do nothing."""


if __name__ == "__main__":
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    main(parse(__doc__))
