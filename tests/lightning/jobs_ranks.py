"""What the ranks of the tests under Lightning do: train small models, and say how it ended."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import warnings
from functools import partial

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from holdfast import FakeClock
from holdfast.engine import shard_sharing
from holdfast.front.words import ranks_here
from holdfast.lightning import ModelCheckpoint
from holdfast.storage.local import LocalStore
from tests.support.lightning_models import Scripted, loader, trainer

VALS = (5, 3, 4, 2, 6, 1)


class Plain(Scripted):
    """Logs the same on every rank, unless told otherwise; and what a rank does at a step of its own."""

    def __init__(self, vals=VALS, *, apart=0.0, only=None, at_step=None):
        super().__init__(vals)
        del self.layer
        self.apart, self.only, self.at_step = apart, only, at_step

    def training_step(self, batch, batch_idx):
        if self.at_step is not None:
            self.at_step(self)
        return self.net(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        value = float(self.vals[self.current_epoch])
        if self.only is None or self.global_rank == self.only:
            self.log("val_loss", value + self.apart * self.global_rank)

    def configure_model(self):
        if not hasattr(self, "net"):
            torch.manual_seed(1)
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class Sharded(Plain):
    """The same model, each of its layers sharded over the ranks."""

    def configure_model(self):
        if not hasattr(self, "net"):
            super().configure_model()
            mesh = self.device_mesh["data_parallel"]
            for layer in (self.net[0], self.net[2], self.net):
                fully_shard(layer, mesh=mesh)


class Wide(Sharded):
    """Large enough that its tensors may be copied later, and taught by the data."""

    def configure_model(self):
        if not hasattr(self, "net"):
            torch.manual_seed(1)
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 300), torch.nn.Tanh(), torch.nn.Linear(300, 300))
            fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


class Sources(pl.Callback):
    """Notes what each fit was resumed from, and at which step."""

    def __init__(self):
        self.path, self.step = "", 0

    def on_train_start(self, trainer, pl_module):
        self.path, self.step = str(trainer.ckpt_path or ""), trainer.global_step


def made(root, kind, size, *callbacks, **options):
    """Return a Trainer of this many ranks."""
    strategies = {
        "one": lambda: "auto",
        "ddp": lambda: "ddp",
        "sharded": lambda: ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1),
        "full": lambda: ModelParallelStrategy(size, 1, save_distributed_checkpoint=False),
    }
    return trainer(root, *callbacks, **{"devices": size, "strategy": strategies[kind](), "max_epochs": 4, **options})


def train(folder, kind, words, *, ckpt_path=None, batches=2, model=None, extra=(), **options):
    """Fit with some batches per rank and epoch, and return what this rank knows afterwards."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    callback = ModelCheckpoint(os.path.join(folder, "d"), **{"monitor": "val_loss", **words})
    given = dict(model or {})
    module = given.pop("of", Plain if kind in ("one", "ddp") else Sharded)(**given)
    sources = Sources()
    runner = made(folder, kind, size, callback, sources, *extra, **options)
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            runner.fit(module, loader(batches * size), loader(), ckpt_path=ckpt_path)
        except Exception as problem:  # noqa: BLE001 - told to the test
            error = problem
    return {
        "error": error and f"{type(error).__name__}: {error}",
        "warnings": [str(item.message) for item in caught],
        "knows": knowledge(callback),
        "step": runner.global_step,
        "weights": digest(module) if error is None else "",
        "from": os.path.basename(sources.path),
        "began": sources.step,
    }


def knowledge(callback):
    """What the callback says of its checkpoints, without their directory."""
    names = {name: os.path.basename(getattr(callback, f"{name}_model_path")) for name in ("best", "last")}
    scores = {os.path.basename(path): float(score) for path, score in callback.best_k_models.items()}
    return {**names, "kth": os.path.basename(callback.kth_best_model_path), "scores": scores}


def digest(module):
    """A digest of the weights, gathered from all ranks where they are sharded."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        found.update(name.encode() + whole.detach().cpu().numpy().tobytes())
    return found.hexdigest()


def several(*jobs):
    """Do one after another in the same processes: each a folder, a kind, the words, and options."""
    return [train(folder, kind, words, **options) for folder, kind, words, options in jobs]


def train_on_a_full_disk(folder):
    """Fit in shards, while rank 1's disk is full from the second save on."""
    put = LocalStore.put

    def full(store, name, chunks, **words):
        if "/__1_0." in name and os.path.exists(os.path.join(folder, "d", "epoch=0-step=2.ckpt")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(store, name, chunks, **words)

    LocalStore.put = full
    return train(folder, "sharded", {"save_top_k": -1, "on_error": "raise"})


class ByHand(pl.Callback):
    """Saves by the Trainer's own method."""

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(os.path.join(trainer.default_root_dir, "by-hand.ckpt"))


def save_by_hand(folder):
    """Fit in shards, save by hand, and go on from that."""
    told = train(folder, "sharded", {}, max_epochs=1, extra=(ByHand(),))
    again = train(folder, "sharded", {}, max_epochs=1, ckpt_path=os.path.join(folder, "by-hand.ckpt"))
    return {**told, "error": told["error"] or again["error"]}


class Trouble(pl.Callback):
    """Does something at the beginning of a batch, once: on one rank, or on all."""

    def __init__(self, what, step, rank=None):
        self.what, self.step, self.rank = what, step, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and self.rank in (None, trainer.global_rank):
            self.what()


def fail():
    message = "out of memory, most likely"
    raise RuntimeError(message)


def interrupted(folder, kind, rank):
    """Fit, until a rank (or all of them, with None) fails after its third step."""
    words = {"save_top_k": -1, "save_on_exception": True}
    return train(folder, kind, words, extra=(Trouble(fail, 3, rank),))


def signalled(folder, kind, rank):
    """Fit, until one rank (or all) is sent SIGUSR1 at its second step: which, on all, raises what a handler raises."""
    earlier = signal.signal(signal.SIGUSR1, lambda *_: fail())
    try:
        return train(folder, kind, {"save_last": True}, batches=60, extra=(Trouble(to_itself, 1, rank),))
    finally:
        signal.signal(signal.SIGUSR1, earlier)


def to_itself():
    os.kill(os.getpid(), signal.SIGUSR1)


class Counting(pl.Callback):
    """Notes at the end of each batch how often the ranks have told each other anything until then."""

    def __init__(self):
        self.seen = []

    def on_train_start(self, trainer, pl_module):
        ranks, self.rounds = ranks_here(), []
        for name in ("agree", "exchange", "gather", "together", "highest"):
            real = getattr(ranks, name)
            setattr(ranks, name, partial(self.count, name, real))

    def count(self, name, real, *args, **words):
        self.rounds.append(name)
        return real(*args, **words)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(len(self.rounds))


def talk(folder, *cases):
    """Fit for an epoch of 100 batches with the words of each case; return what the ranks told each other at each."""
    told = []
    for place, words in enumerate(cases):
        counting = Counting()
        done = train(f"{folder}/{place}", "ddp", words, batches=100, max_epochs=1, extra=(counting,))
        before = [0, *counting.seen[:-1]]
        between = [now - earlier for now, earlier in zip(counting.seen, before, strict=True)]
        told.append((done["error"], between, sorted(set(counting.rounds))))
    return told


class Later(pl.Callback):
    """Counts what is left to be copied when a save has been taken."""

    def __init__(self):
        self.later = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        shared = list(shard_sharing._shared.values())
        self.later += sum(bool(flight.taken.later) for one in shared for flight, _ in one.saver._flights)


def train_in_every_way(folder, *ways):
    """Fit the wide model in shards, saved at every step in ways of its own; and once with no checkpoint."""
    told = []
    for name, words in ways:
        later = Later()
        given = {"monitor": None, "every_n_train_steps": 1, "save_top_k": -1, **words}
        options = {"model": {"of": Wide}, "batches": 3, "max_epochs": 2}
        done = train(os.path.join(folder, name), "sharded", given, extra=(later,), **options)
        told.append({**done, "later": later.later})
    return told


def resume_from(folder, path):
    """Fit in shards, from what a stranger has left."""
    return train(folder, "sharded", {}, ckpt_path=path)


def apart(folder):
    """Fit twice; for the second fit each rank looks for its own directory, and rank 1's is empty."""
    train(f"{folder}/0", "ddp", {"save_last": True}, max_epochs=1)
    return train(f"{folder}/{dist.get_rank()}", "ddp", {"save_last": True}, ckpt_path="last")


class Ticking(pl.Callback):
    """Lets the time of rank 0 pass by seconds with each batch; the others' stands still."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.is_global_zero:
            self.clock.advance(self.seconds)


def before_the_end(folder, kind):
    """Fit for 40 steps of a second, with a deadline after 30 by rank 0's clock."""
    clock = FakeClock()
    words = {"monitor": None, "save_top_k": 0, "deadline": 30, "grace_period": 20, "clock": clock}
    return train(folder, kind, words, batches=40, max_epochs=1, extra=(Ticking(clock, 1.0),))


class Stuck(pl.Callback):
    """Fails on rank 1, or is killed there, while rank 0 waits in a collective of the training's."""

    def __init__(self, *, killed):
        self.killed = killed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            if trainer.global_rank == 1:
                if self.killed:
                    os.kill(os.getpid(), signal.SIGKILL)
                fail()
            dist.barrier()


def stuck(folder, killed):
    """Fit until rank 1 fails, and say what rank 0's log then says."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("holdfast").addHandler(handler)
    told = train(folder, "ddp", {}, extra=(Stuck(killed=killed),))
    if dist.get_rank() == 1:
        os._exit(1)  # its connections break
    return told["error"], lines
