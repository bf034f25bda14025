"""A training that saves after each step, and says on a file of this machine what it was told is committed.

``python -m tests.clouds.training URL ACKS STEPS [MIRROR]``: prints the digest of its weights at the end.
"""

from __future__ import annotations

import hashlib
import os
import sys

import torch

from holdfast import Checkpointer

WIDTH = 2_200_000  # numbers of the model: with the optimizer's, more than one block


def parts():
    """The same model each time."""
    torch.manual_seed(7)
    model = torch.nn.Linear(WIDTH, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def digest(model):
    """A name for the weights, to the bit."""
    return hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest()


def train(url, acks, steps, mirror=None):
    """Go on from what is there, to the last step; return the digest of the weights."""
    model, optimizer = parts()
    words = {"monitor": "loss", "save_top_k": 2, "save_last": True, "every_n_train_steps": 1, "async_save": False}
    with Checkpointer(url, model=model, optimizer=optimizer, mirror=mirror, on_error="raise", **words) as ckpt:
        start = ckpt.resume()
        with open(acks, "a") as file:
            for step in range(start.step, steps):
                optimizer.zero_grad()
                (model.weight * torch.rand(1, WIDTH)).sum().backward()
                optimizer.step()
                ckpt.step({"loss": float(step * 7 % 5)})
                file.write(f"{step + 1} {digest(model)}\n")
                file.flush()
                os.fsync(file.fileno())
    return digest(model)


if __name__ == "__main__":
    sys.stdout.write(train(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]) + "\n")
