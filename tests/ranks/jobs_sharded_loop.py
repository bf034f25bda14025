"""Plain loops whose model lies in parts on several ranks: ``fully_shard`` with chance of their own."""

from __future__ import annotations

import errno
import os
import random
import warnings

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from holdfast import Checkpointer, ConfigurationError
from holdfast.storage.local import LocalStore
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


def kept(folder):
    """Train with a ranking and ``last``; tell what each rank believes, and what is there."""
    trainee = Trainee()
    words = {"monitor": "loss", "save_top_k": 2, "save_last": True, "filename": "{epoch}"}
    with trainee.checkpointer(folder, **words) as ckpt:
        for epoch, loss in enumerate((3.0, 1.0, 2.0, 4.0)):
            for batch in trainee.data(epoch):
                trainee.learn(batch)
                ckpt.step()
            ckpt.end_epoch({"loss": loss + 10 * trainee.rank})
    scores = {os.path.basename(path): float(score) for path, score in ckpt.best_k_models.items()}
    return scores, os.path.basename(ckpt.best_model_path), os.path.basename(ckpt.last_model_path), ckpt.stats.committed


def over_damage(folder):
    """Resume where the newest is damaged; tell what came of it."""
    trainee = Trainee(seed=50)
    start = trainee.checkpointer(folder, every_n_train_steps=2, save_top_k=-1).resume()
    skipped = [(os.path.basename(item.path), os.path.basename(item.aside)) for item in start.skipped]
    return start.step, skipped, trainee.state()[0]


def error_of(folder):
    """Resume where nothing is whole, or stop at the first damage; return the error's kind and text."""
    trainee = Trainee(seed=50)
    before = trainee.state()[0]
    try:
        trainee.checkpointer(folder, on_damage="raise").resume()
    except Exception as error:  # noqa: BLE001 - what it is, is the answer
        return type(error).__name__, str(error), trainee.state()[0] == before
    return None


def failing(folder):
    """Save while the disk of rank 1 is full, then while it is not; tell what was heard of it."""
    trainee = Trainee()
    ckpt = trainee.checkpointer(folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    whole, heard = LocalStore.put, []

    def put(self, name, chunks, **words):
        if trainee.rank == 1 and ckpt.global_step == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(self, name, chunks, **words)

    LocalStore.put = put
    for batch in trainee.data(0):
        trainee.learn(batch)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ckpt.step()
            ckpt._settle(wait=True)
        heard += [str(item.message) for item in said if "rank 1" in str(item.message)]
    ckpt.close()
    return heard


def side_by_side(folder):
    """Save with two checkpointers on one directory and one on another, all on their way at a time."""
    trainee = Trainee()
    often = trainee.checkpointer(folder, every_n_train_steps=1, save_top_k=1, filename="often-{step}")
    seldom = trainee.checkpointer(folder, every_n_train_steps=3, save_top_k=-1, filename="seldom-{step}")
    there = trainee.checkpointer(os.path.join(folder, "there"), every_n_train_steps=2, images=2, save_top_k=-1)
    for epoch in range(2):
        for batch in trainee.data(epoch):
            trainee.learn(batch)
            for ckpt in (often, seldom, there):
                ckpt.step()
    for ckpt in (often, seldom, there):
        ckpt.close()
    return often.stats.committed, seldom.stats.committed, there.stats.committed, trainee.state()[0]


def flat(folder):
    """Open a checkpointer on a model whose parts are in FSDP1; return what is said."""

    class Flat(FullyShardedDataParallel):
        """Needs a GPU to be made: its class is all that is asked for."""

        def __init__(self):
            torch.nn.Module.__init__(self)

    try:
        Checkpointer(folder, model=torch.nn.Sequential(Flat()))
    except ConfigurationError as error:
        return str(error)
    return ""


def stages(folder):
    """Save where each rank has other layers; return what is said."""
    rank = dist.get_rank()
    model = torch.nn.ModuleDict({f"stage{rank}": fully_shard(torch.nn.Linear(4, 4))})
    ckpt = Checkpointer(folder, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    try:
        ckpt.save_checkpoint()
    except ConfigurationError as error:
        return str(error)
    return ""
