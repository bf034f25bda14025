"""The training that is killed: each step's weights depend on the steps before it, and on nothing else."""

from __future__ import annotations

import hashlib
import time
import warnings
from datetime import timedelta

import torch

from holdfast import Checkpointer
from tests.support.bits import Acknowledged, digest_of_parts

WIDTH = 256
PACE = 0.02  # seconds of rest after each step: a machine has other things to do
TOP = 3


def parts():
    """A model with dropout and an optimizer with moments, from one seed: some 400 kB of state."""
    torch.manual_seed(11)
    model = torch.nn.Sequential(torch.nn.Linear(64, WIDTH), torch.nn.Dropout(0.2), torch.nn.Linear(WIDTH, 64))
    return model, torch.optim.AdamW(model.parameters(), lr=0.001)


def loss_at(step):
    """A score for each step, no two of one run the same, good and bad ones among each other."""
    return int.from_bytes(hashlib.sha256(str(step).encode()).digest()[:6], "big") / 2**48


def learn(model, optimizer, step):
    """One step on the batch that the step's number alone decides; dropout draws from torch's generator."""
    batch = torch.rand(8, 64, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(batch), batch).backward()
    optimizer.step()


def train(folder, tell, stopped, every):
    """Train from wherever the folder says until told to stop, with a save every so many seconds."""
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_, **__: tell({"warned": str(message)})
    model, optimizer = parts()
    words = {"monitor": "loss", "save_top_k": TOP, "save_last": True, "train_time_interval": timedelta(seconds=every)}
    with Checkpointer(folder, model=model, optimizer=optimizer, on_error="warn", max_failures=10**6, **words) as ckpt:
        start = ckpt.resume()
        tell({"resumed": start.step, "missed": list(start.missed), "digest": digest_of_parts(model, optimizer)})
        acknowledged = Acknowledged(ckpt)
        while not stopped():
            step = ckpt.global_step + 1
            learn(model, optimizer, step)
            tell({"step": step, "digest": digest_of_parts(model, optimizer)})
            ckpt.step({"loss": loss_at(step)})
            known = acknowledged.after(step)
            if known is not None:
                tell({"acknowledged": known})
            time.sleep(PACE)
    tell({"closed": ckpt.global_step})
