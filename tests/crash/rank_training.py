"""A training of several ranks that can be killed anywhere: replicated (DDP) or sharded (FSDP2), on the CPU.

Each rank says what it does in a file of its own, line by line, so that it is known of a killed one, too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import threading

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from holdfast import Checkpointer
from holdfast.ranks import Ranks
from tests.crash import faults
from tests.support.ranks import tell

STEPS = 6
WORDS = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}
MODES = {
    "waiting": {"async_save": False, "on_error": "raise"},
    "behind": {"on_error": "raise"},
    "last": {"async_save": False, "on_error": "raise", "save_last": "link", "save_top_k": 1},
}


def parts(kind):
    """A model whose parts do not divide by the number of ranks, as that kind has it, and its optimizer."""
    torch.manual_seed(7)
    inner = torch.nn.Sequential(
        torch.nn.Linear(5, 7),
        torch.nn.BatchNorm1d(7),
        torch.nn.Dropout(0.2),
        torch.nn.Linear(7, 30),
        torch.nn.Linear(30, 1),
    )
    if kind == "replicated":
        # DDP lays its buckets out anew after the first step, and with three ranks or more a sum then rounds otherwise:
        # not so if it looks for unused parameters.
        model = DistributedDataParallel(inner, find_unused_parameters=True)
    else:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (inner[0], inner[3]):
            fully_shard(layer, mesh=mesh)
        model = fully_shard(inner, mesh=mesh)
    torch.manual_seed(100 + dist.get_rank())  # what dropout draws is each rank's own
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def batch(step):
    """What this rank sees at a step: each rank something else, and the same whenever the step is made again."""
    generator = torch.Generator().manual_seed(1000 * step + dist.get_rank())
    return torch.rand(4, 5, generator=generator)


def learn(model, optimizer, step):
    """One step; every rank has to make it."""
    data = batch(step)
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(data), data.sum(1, keepdim=True)).backward()
    optimizer.step()


def digest(model, optimizer):
    """A name for the parameters and the optimizer's state, to the bit, however they lie on the ranks: all call it.

    Buffers are each rank's own under sharding, and rank 0's count.
    """
    sha = hashlib.sha256()
    for name, parameter in model.named_parameters():
        sha.update(name.removeprefix("module.").encode())
        state = optimizer.state.get(parameter, {})
        for value in (parameter.detach(), *(state[key] for key in sorted(state))):
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            sha.update(whole.contiguous().numpy().tobytes())
    return sha.hexdigest()


def undisturbed(kind):
    """The digest after each step of a run that nothing happens to and that saves nothing."""
    model, optimizer = parts(kind)
    digests = {}
    for step in range(1, STEPS + 1):
        learn(model, optimizer, step)
        digests[step] = digest(model, optimizer)
    return digests


def train(folder, kind, mode, acks, fault=None):
    """Train from wherever the folder says to the end; one rank may be given a fault: ``{"rank", ...}``."""
    rank = dist.get_rank()
    descriptor = os.open(os.path.join(acks, str(rank)), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(**what):
        os.write(descriptor, json.dumps(what).encode() + b"\n")

    model, optimizer = parts(kind)
    with Checkpointer(folder, model=model, optimizer=optimizer, **{**WORDS, **MODES[mode]}) as ckpt:
        start = ckpt.resume()
        say(resumed=start.step, digest=digest(model, optimizer) if start.step else "")
        if fault is not None and fault.pop("rank") == rank:
            install(folder, **fault)
        for step in range(start.step + 1, STEPS + 1):
            learn(model, optimizer, step)
            tell(f"step{step}")
            ckpt.step()
            if mode == "behind" and step % 3 == 0:
                ckpt.wait()
            if mode != "behind" or step % 3 == 0:
                say(acknowledged=step)
    say(finished=digest(model, optimizer))


def install(folder, call, **fault):
    """Let a call of this rank do something else: a function of ``os``, or a collective of ours."""
    if not hasattr(Ranks, call):
        faults.install(folder, call, **fault)
        return
    real, counted, lock = getattr(Ranks, call), [], threading.Lock()

    @functools.wraps(real)
    def killed(self, *arguments, **words):
        with lock:
            counted.append(1)
            reached = len(counted) == fault["at"]
        if reached:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments, **words)

    setattr(Ranks, call, killed)


def main():
    """Be one rank under torchrun; with the fault that is given as JSON until torchrun has restarted it."""
    folder, kind, mode, acks, fault = sys.argv[1:]
    dist.init_process_group("gloo")
    fresh = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    os.environ["HOLDFAST_TEST_RUN"] = acks
    train(folder, kind, mode, acks, json.loads(fault) if fresh else None)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
