"""Plain loops on meshes: tensor parallelism, replicas of shards, both axes sharded, and what comes beside a model."""

from __future__ import annotations

import threading
import warnings

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import holdfast
from holdfast import Checkpointer
from holdfast.storage.local import LocalStore
from tests.ranks.jobs_sharded_loop import full

STEPS = 6


class Net(torch.nn.Module):
    """Two layers, the second dimension of which divides by four."""

    def __init__(self, width=8, norm=False):
        super().__init__()
        self.up = torch.nn.Linear(6, width)
        self.norm = torch.nn.BatchNorm1d(width) if norm else torch.nn.Identity()
        self.down = torch.nn.Linear(width, 5)

    def forward(self, batch):
        return self.down(self.norm(torch.relu(self.up(batch))))


class App:
    """Model and optimizer under names, as DCP's tutorials have them."""

    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer

    def state_dict(self):
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optim": optimizer}

    def load_state_dict(self, state):
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optim"])


class Ema:
    """A moving average of a model's parameters, cut as they are."""

    def __init__(self, model):
        self.mean = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update_parameters(self, model):
        for name, value in model.named_parameters():
            self.mean[name].lerp_(value.detach(), 0.1)

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)


def cut(model, kind):
    """Lay a model over all ranks."""
    size = dist.get_world_size()
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    if kind == "tp":
        return parallelize_module(model, init_device_mesh("cpu", (size,)), plan)
    if kind == "hsdp":
        return fully_shard(model, mesh=init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("copies", "parts")))
    if kind == "both":
        mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("data", "tensor"))
        return fully_shard(parallelize_module(model, mesh["tensor"], plan), mesh=mesh["data"])
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    return model if kind == "plain" else fully_shard(model)


class Trainee:
    """One rank of a training, whose data are the same on all ranks where its mesh wants that."""

    def __init__(self, kind, *, seed=0, width=8, norm=False, ema=False, app=False, differ=False):
        torch.manual_seed(3 + seed)
        self.model = cut(Net(width, norm), kind)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.differ = differ
        self.ema = Ema(self.model) if ema else None
        others = {"app": App(self.model, self.optimizer)} if app else {}
        others |= {"ema": self.ema} if ema else {}
        objects = {} if app else {"model": self.model, "optimizer": self.optimizer}
        self.objects = objects | {"stateful": others}

    def checkpointer(self, folder, **words):
        return Checkpointer(folder, **self.objects, **words)

    def run(self, ckpt=None, stop_at=STEPS):
        for step in range(ckpt.global_step if ckpt else 0, stop_at):
            generator = torch.Generator().manual_seed(step + (100 * dist.get_rank() if self.differ else 0))
            self.optimizer.zero_grad()
            self.model(torch.rand(4, 6, generator=generator)).pow(2).mean().backward()
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update_parameters(self.model)
            if ckpt is not None:
                ckpt.step()
        if ckpt is not None and stop_at == STEPS:
            ckpt.close()
        elif ckpt is not None:
            ckpt.wait()
        return self

    def state(self):
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{number}.{key}": value for key, value in values.items()}
        if self.ema is not None:
            tensors |= {f"ema.{name}": value for name, value in self.ema.mean.items()}
        return {name: full(value) for name, value in tensors.items()}


def untouched(kind, parts):
    return Trainee(kind, **parts).run().state()


def trained(folder, kind, parts, words, stop_at=STEPS):
    trainee = Trainee(kind, **parts)
    ckpt = trainee.checkpointer(folder, **words)
    return trainee.run(ckpt, stop_at).state()


def go_on(folder, kind, parts, words, stop_at=STEPS):
    trainee = Trainee(kind, seed=50, **parts)
    ckpt = trainee.checkpointer(folder, **words)
    start = ckpt.resume()
    if stop_at == 0:
        return (start.step, start.missed), trainee.state()
    return (start.step, start.missed), trainee.run(ckpt).state()


def busy(folder):
    """Save at each of three steps, the first of which cannot be written before the third; tell what is skipped."""
    trainee, whole, written = Trainee("fsdp"), LocalStore.put, threading.Event()

    def put(self, name, chunks, **words):
        assert written.wait(30)
        return whole(self, name, chunks, **words)

    if dist.get_rank() == 1:  # it is rank 0 that has to know
        LocalStore.put = put
    with trainee.checkpointer(folder, every_n_train_steps=1, save_top_k=-1, on_busy="skip", filename="{step}") as ckpt:
        trainee.run(ckpt, stop_at=0)
        for _ in range(3):
            ckpt.step()
        written.set()
    return ckpt.stats.skipped, ckpt.stats.committed


def weights(path, parts):
    """Load a model's weights over others, whole, and return them."""
    model = Net(norm=parts["norm"])
    model.load_state_dict(holdfast.load(path)["state_dict"])
    return {f"model.{name}": full(value) for name, value in model.state_dict().items()}


def validated(folder):
    """Save in the midst of a validation; return what was there, and what a resume finds."""
    trainee, other = Trainee("fsdp").run(), Trainee("fsdp", seed=50)
    with torch.inference_mode():
        trainee.model(torch.ones(2, 6))
        trainee.checkpointer(folder).save_checkpoint()
    other.checkpointer(folder).resume()
    return trainee.state(), other.state()


def ignoring(folder):
    """Open a checkpointer on a model of which DDP ignores a part; return what is said."""
    model = Net()
    torch.nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, ["down.weight"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Checkpointer(folder, model=torch.nn.parallel.DistributedDataParallel(model))
    return [str(item.message) for item in said if "stateful" in str(item.message)]
