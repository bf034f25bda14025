"""Plain loops whose model lies in parts on several ranks: ``fully_shard`` with chance of their own."""

from __future__ import annotations

import os
import random

import torch
import torch.distributed as dist
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from holdfast import Checkpointer
from tests.ranks.jobs_loop import Position, told

EPOCHS = 3
BATCHES = 3


class Net(torch.nn.Module):
    """Parameters whose first dimension divides by no number of ranks, a buffer, and a weight with two names."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.first = torch.nn.Linear(3, 7, dtype=dtype)
        self.drop = torch.nn.Dropout(0.3)
        self.head = torch.nn.Linear(7, 5, bias=False, dtype=dtype)
        self.again = torch.nn.Linear(7, 5, bias=False, dtype=dtype)
        self.again.weight = self.head.weight
        self.register_buffer("scale", torch.ones(2, dtype=dtype))

    def forward(self, batch):
        hidden = self.drop(torch.relu(self.first(batch)))
        return self.head(hidden) + self.again(hidden) * self.scale[0]


def make_optimizer(kind, parameters):
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=0.05)


class Trainee:
    """One rank of the training."""

    def __init__(self, kind="adamw", dtype=torch.float32, *, sharded=True, seed=0):
        torch.manual_seed(7 + seed)
        self.model = Net(dtype)
        if sharded:
            fully_shard(self.model, mp_policy=MixedPrecisionPolicy(), reshard_after_forward=False)
        self.optimizer = make_optimizer(kind, self.model.parameters())
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.position, self.shared = Position(100 * self.rank), Position(5)
        torch.manual_seed(1000 + seed + self.rank)
        random.seed(1000 + seed + self.rank)

    def checkpointer(self, folder, **words):
        return Checkpointer(
            folder,
            model=self.model,
            optimizer=self.optimizer,
            lr_scheduler=self.schedule,
            stateful={"position": self.position, "shared": self.shared},
            **words,
        )

    def learn(self, batch):
        self.optimizer.zero_grad()
        noise = random.random()  # noqa: S311 - chance that must be restored
        (self.model(batch) - noise).pow(2).mean().backward()
        self.optimizer.step()
        self.model.scale.add_(0.01)
        self.position.at += 1

    def data(self, epoch):
        generator = torch.Generator().manual_seed(31 * epoch + self.rank)
        dtype = self.model.first.weight.dtype
        return [torch.rand(4, 3, generator=generator).to(dtype) for _ in range(BATCHES)]

    def run(self, ckpt=None, start=None, stop_at=None):
        for epoch in range(start.epoch if start else 0, EPOCHS):
            for batch in start.remaining(self.data(epoch), epoch) if start else self.data(epoch):
                self.learn(batch)
                if ckpt is not None:
                    ckpt.step()
                    if ckpt.global_step == stop_at:
                        ckpt.wait()
                        return self
            self.schedule.step()
            if ckpt is not None:
                ckpt.end_epoch()
        if ckpt is not None:
            ckpt.close()
        return self

    def state(self):
        """All that training has changed, whole, to compare to the bit; what differs by rank at the end."""
        weights = {name: full(value) for name, value in self.model.state_dict().items()}
        moments = {
            f"{number}.{key}": full(value)
            for number, values in self.optimizer.state_dict()["state"].items()
            for key, value in values.items()
        }
        numbers = (self.schedule.last_epoch, self.position.at, self.shared.at, random.random(), torch.rand(1).item())  # noqa: S311
        return weights, moments, numbers


def full(value):
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return (str(value.dtype), value.detach().float().tolist()) if isinstance(value, torch.Tensor) else value


def trained(folder, words, stop_at=None, kind="adamw", dtype=torch.float32):
    """Train with checkpoints, up to a step if one is given; return the state then."""
    trainee = Trainee(kind, dtype)
    return trainee.run(trainee.checkpointer(folder, **words), stop_at=stop_at).state()


def untouched(kind="adamw"):
    """Train with no checkpoints."""
    return Trainee(kind).run().state()


def go_on(folder, words):
    """Resume over a model, generators and positions that are off, and train to the end."""
    trainee = Trainee(seed=50)
    trainee.position.at = trainee.shared.at = -1
    ckpt = trainee.checkpointer(folder, **words)
    start = ckpt.resume()
    return told(start), trainee.run(ckpt, start).state()


def resumed(folder, path=None, kind="adamw", dtype=torch.float32, sharded=True):
    """Resume over a model that is off, and return what is there then."""
    trainee = Trainee(kind, dtype, sharded=sharded, seed=50)
    start = trainee.checkpointer(folder).resume(path)
    return told(start), trainee.state()


def names(folder):
    """What is to be seen in a folder."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))
