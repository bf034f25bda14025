"""The training that is killed: each step's weights depend on the steps before it, and on nothing else."""

from __future__ import annotations

import hashlib
import time
import warnings
from datetime import timedelta

import torch

import holdfast
from holdfast import Checkpointer

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


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _tensors(value[key])


def digest(weights, state):
    """A name for weights and optimizer state, to the bit."""
    found = hashlib.sha256()
    for tensor in (*_tensors(weights), *_tensors(state)):
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:20]


def digest_of(path):
    """The same for a file; it is loaded, so every byte of it is verified."""
    state = holdfast.load(path)
    return digest(state["state_dict"], state["optimizer_states"][0]["state"])


def train(folder, tell, stopped, every):
    """Train from wherever the folder says until told to stop, with a save every so many seconds."""
    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_, **__: tell({"warned": str(message)})
    model, optimizer = parts()
    words = {"monitor": "loss", "save_top_k": TOP, "save_last": True, "train_time_interval": timedelta(seconds=every)}
    with Checkpointer(folder, model=model, optimizer=optimizer, on_save_error="warn", **words) as ckpt:
        start = ckpt.resume()
        told = digest(model.state_dict(), optimizer.state_dict()["state"])
        tell({"resumed": start.step, "missed": list(start.missed), "digest": told})
        begun = committed = under_way = 0
        while not stopped():
            step = ckpt.global_step + 1
            learn(model, optimizer, step)
            tell({"step": step, "digest": digest(model.state_dict(), optimizer.state_dict()["state"])})
            ckpt.step({"loss": loss_at(step)})
            if ckpt.stats.committed > committed:
                committed = ckpt.stats.committed
                tell({"acknowledged": under_way})
            if ckpt.stats.saves > begun:
                begun, under_way = ckpt.stats.saves, step
            time.sleep(PACE)
    tell({"closed": ckpt.global_step})
