"""Plain loops on several ranks, each with chance and a part of the data of its own."""

from __future__ import annotations

import random

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from holdfast import Checkpointer

EPOCHS = 4
BATCHES = 3


class Position:
    """A place in this rank's own part of the data."""

    def __init__(self, at):
        self.at = at

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Replica:
    """One rank of a training with dropout, whose draws and data differ from the other ranks'."""

    def __init__(self, seed=0, *, wrapped=True):
        torch.manual_seed(7)
        inside = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.4), torch.nn.Linear(8, 1))
        self.model = DistributedDataParallel(inside) if wrapped else inside
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        rank = dist.get_rank()
        self.position = Position(100 * rank)
        self.shared = Position(5)
        torch.manual_seed(1000 + seed + rank)
        random.seed(1000 + seed + rank)

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
        noise = random.random()  # noqa: S311 - chance that must be restored
        self.optimizer.zero_grad()
        (self.model(batch) - noise).pow(2).mean().backward()
        self.optimizer.step()
        self.position.at += 1

    def run(self, ckpt, start=None, stop_at=None):
        for epoch in range(start.epoch if start else 0, EPOCHS):
            generator = torch.Generator().manual_seed(31 * epoch + dist.get_rank())
            data = [torch.rand(4, 3, generator=generator) for _ in range(BATCHES)]
            for batch in start.remaining(data, epoch) if start else data:
                self.learn(batch)
                ckpt.step()
                if ckpt.global_step == stop_at:
                    ckpt.wait()
                    return self
            self.schedule.step()
            ckpt.end_epoch()
        ckpt.close()
        return self

    def state(self):
        tensors = [*self.model.state_dict().values()]
        moments = [value for item in self.optimizer.state.values() for value in item.values()]
        numbers = (self.schedule.last_epoch, self.position.at, self.shared.at, random.random())  # noqa: S311
        return [value.tolist() for value in (*tensors, *moments, torch.rand(2))], numbers


def told(start):
    return {
        "step": start.step,
        "epoch": start.epoch,
        "path": start.path,
        "missed": start.missed,
        "done": start.restored,
    }


def whole(folder, words):
    """The state at the end of an uninterrupted run."""
    replica = Replica()
    return replica.run(replica.checkpointer(folder, **words)).state()


def without():
    """The state at the end of a run that never saves."""
    replica = Replica()
    for epoch in range(EPOCHS):
        generator = torch.Generator().manual_seed(31 * epoch + dist.get_rank())
        for _ in range(BATCHES):
            replica.learn(torch.rand(4, 3, generator=generator))
        replica.schedule.step()
    return replica.state()


def begin(folder, words, stop_at):
    """Train up to a step, and stop as a kill would."""
    replica = Replica()
    replica.run(replica.checkpointer(folder, **words), stop_at=stop_at)


def go_on(folder, words):
    """Resume with generators and positions that are off, and train to the end."""
    replica = Replica(seed=50)
    replica.position.at = replica.shared.at = -1
    ckpt = replica.checkpointer(folder, **words)
    start = ckpt.resume()
    return told(start), replica.run(ckpt, start).state()


def resume_alone(folder, wrapped):
    """Resume, and tell what came of it, and what the objects are then."""
    replica = Replica(seed=50, wrapped=wrapped)
    start = replica.checkpointer(folder).resume()
    weights = {name.removeprefix("module."): value for name, value in replica.model.state_dict().items()}
    return told(start), weights, (replica.position.at, replica.shared.at)
