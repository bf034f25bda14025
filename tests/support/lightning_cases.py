"""Small things that the tests on the real Trainer say again and again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings

import torch
from lightning.pytorch.callbacks import ModelCheckpoint as Stock

from holdfast.lightning import ModelCheckpoint
from holdfast.storage import RUN_LOCK
from tests.support.lightning_models import Scripted, loader, trainer
from tests.support.running import PYTHONPATH, everything

__all__ = [
    "ModelCheckpoint",
    "Scripted",
    "Stock",
    "fit",
    "loader",
    "names",
    "quietly",
    "run_script",
    "step_of",
    "steps",
    "trainer",
]


def fit(root, *callbacks, model=None, vals=None, batches=2, validate=True, ckpt_path=None, **options):
    """Train for real, two batches an epoch by default, and return the Trainer."""
    if model is None:
        model = Scripted(vals) if vals is not None else Scripted()
    made = trainer(root, *callbacks, **options)
    made.fit(model, loader(batches), loader() if validate else None, ckpt_path=ckpt_path)
    return made


def names(folder):
    """Every file below a folder, sorted, hidden ones included, but for the lock of a run that is alive here."""
    return everything(folder)


def step_of(path):
    """The optimizer steps that a checkpoint has behind it, as plain torch reads it."""
    return torch.load(path, weights_only=False)["global_step"]


def steps(folder):
    """The steps of every checkpoint in a folder, sorted; a dead run's lock is none."""
    return sorted(step_of(os.path.join(folder, name)) for name in names(folder) if name != RUN_LOCK)


def run_script(source, *arguments, timeout=300):
    """Run a Python script in a process of its own that can import the tests."""
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "ignore"}
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(source)
        script.flush()
        return subprocess.run(
            [sys.executable, script.name, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
        )


def quietly(call, *arguments, **options):
    """Call something and return its result with the messages of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call(*arguments, **options)
    return result, [str(item.message) for item in caught]
