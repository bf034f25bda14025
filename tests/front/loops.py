"""A plain loop that draws from every generator, so that a resume that forgets one is found out."""

from __future__ import annotations

import random

import numpy as np
import torch

from holdfast import Checkpointer
from tests.support.running import everything

BATCHES = 4


class Loop:
    """A model with dropout, an optimizer with moments, a schedule and a counter of one's own."""

    def __init__(self, seed=3):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the generator that training scripts use
        self.model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.4), torch.nn.Linear(4, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.counter = Counter()

    def checkpointer(self, folder, **words):
        return Checkpointer(
            folder,
            model=self.model,
            optimizer=self.optimizer,
            lr_scheduler=self.schedule,
            stateful={"counter": self.counter},
            **words,
        )

    def batches(self, epoch):
        """The batches of an epoch, in an order that the epoch decides."""
        generator = torch.Generator().manual_seed(epoch)
        return [torch.rand(2, 3, generator=generator) for _ in range(BATCHES)]

    def learn(self, batch):
        """One optimizer step, with chance from torch, Python and NumPy."""
        noise = random.random() + np.random.rand()  # noqa: NPY002, S311 - chance that must be restored
        self.optimizer.zero_grad()
        (self.model(batch) - noise).pow(2).mean().backward()
        self.optimizer.step()
        self.schedule.step()
        self.counter.count += 1

    def run(self, ckpt, epochs, *, start=None, stop_at=None, scores=None):
        """Train; stop in the middle, as a kill would, at ``stop_at`` steps."""
        for epoch in range(start.epoch if start else 0, epochs):
            for batch in start.remaining(self.batches(epoch), epoch) if start else self.batches(epoch):
                self.learn(batch)
                ckpt.step()
                if ckpt.global_step == stop_at:
                    return self
            ckpt.end_epoch({"val_loss": scores[epoch]} if scores else None)
        ckpt.close()
        return self

    def state(self):
        """All that training has changed, for comparison to the bit."""
        tensors = [*self.model.state_dict().values()]
        moments = [value for item in self.optimizer.state.values() for value in item.values()]
        numbers = (self.schedule.last_epoch, self.counter.count, random.random(), float(np.random.rand()))  # noqa: NPY002, S311
        return [value.tolist() for value in (*tensors, *moments, torch.rand(2))], numbers


class Counter:
    """The smallest thing with a state."""

    count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def names(folder):
    """Every file below a folder, hidden ones too, but for the lock of a run that is alive here; sorted."""
    return everything(folder)


def step_of(path):
    """The optimizer steps of a checkpoint, as plain torch reads them."""
    return torch.load(path, weights_only=True)["global_step"]
