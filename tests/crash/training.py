"""A plain training loop that can be killed anywhere, and a process that starts it again and again.

Run as a module it imports torch once and forks a child for every line it reads, so that a run costs
tens of milliseconds. A line is JSON: ``{"folder", "words", "acks"}``, and what is to go wrong. For each
it prints the child's number, waits for a line, lets the child begin, or go on from the step at which it
was to be held, waits for another, and prints how it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sys
from importlib import import_module

import torch

from holdfast import Checkpointer, SaveError
from holdfast.storage.local import LocalStore
from tests.crash import faults

EPOCHS, BATCHES = 5, 4
SCORES = (5.0, 3.0, 4.0, 2.0, 6.0)
WAITING = {"async_save": False, "on_error": "raise"}  # every run makes the same calls in the same order
WORDS = {
    "epochs": {"monitor": "val_loss", "save_top_k": 2, "save_last": True, **WAITING},
    "steps": {"every_n_train_steps": 2, "save_last": True, **WAITING},
    "validated": {"every_n_train_steps": 3, "monitor": "val_loss", "save_top_k": 2, "save_last": True, **WAITING},
    "all": {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{epoch}/{step}", **WAITING},
}
EVERY = {"every_n_train_steps": 1, "monitor": "loss", "save_top_k": 2, "save_last": True, "on_error": "raise"}
BEHIND = {
    "behind": EVERY,
    "overlap": {**EVERY, "overlap": True},
    "recycled": {**EVERY, "recycle_blocks": True},
    "zero-copy": {**EVERY, "zero_copy": True},
    "everything": {**EVERY, "overlap": True, "images": 2, "recycle_blocks": True},
}
WIDE = {"overlap", "zero-copy", "everything"}  # only large tensors are copied later, or not at all
FAILED = 3
PATIENCE = 60  # seconds after which a training that hangs is ended, by SIGALRM


def loss_at(step):
    """A score for each step, no two the same, good and bad ones among each other."""
    return float(step * 7 % 23)


def parts(width=8):
    """A model with dropout, an optimizer with moments and a schedule, all from one seed."""
    torch.manual_seed(7)
    random.seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Dropout(0.3), torch.nn.Linear(width, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3)


def batches(epoch):
    """The batches of an epoch, in an order that the epoch alone decides."""
    generator = torch.Generator().manual_seed(epoch)
    return [torch.rand(5, 4, generator=generator) for _ in range(BATCHES)]


def learn(model, optimizer, schedule, batch):
    """One optimizer step; draws from torch's generator (dropout) and from Python's."""
    optimizer.zero_grad()
    target = batch.sum(1, keepdim=True) + random.random()  # noqa: S311 - chance that must be restored
    torch.nn.functional.mse_loss(model(batch), target).backward()
    optimizer.step()
    schedule.step()


def digest(model):
    """A name for the weights, to the bit."""
    data = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(data).hexdigest()


def width_of(words):
    """How wide the model is that is trained with these words."""
    return 8192 if words in WIDE else 8


def train(folder, words, tell, held=None, **more):
    """Train to the end from wherever the folder says; ``tell`` hears of each save that was acknowledged."""
    model, optimizer, schedule = parts(width_of(words))
    options = {**WORDS, **BEHIND}[words] | more
    with Checkpointer(folder, model=model, optimizer=optimizer, lr_scheduler=schedule, **options) as ckpt:
        start = ckpt.resume()
        tell({"resumed": start.step, "missed": list(start.missed)})
        for epoch in range(start.epoch, EPOCHS):
            for batch in start.remaining(batches(epoch), epoch):
                learn(model, optimizer, schedule, batch)
                ckpt.step({"loss": loss_at(ckpt.global_step + 1)} if words in BEHIND else None)
                tell(standing(ckpt))
                if held is not None:
                    held(ckpt.global_step)
            ckpt.end_validation({"val_loss": SCORES[epoch]})
            ckpt.end_epoch()
            tell(standing(ckpt))
    tell({**standing(ckpt), "digest": digest(model)})


def standing(ckpt):
    """What the checkpointer says of the files that are there."""
    names = {"best": ckpt.best_model_path, "last": ckpt.last_model_path}
    score = {} if ckpt.best_model_score is None else {"score": float(ckpt.best_model_score)}
    return {
        "step": ckpt.global_step,
        **score,
        **{role: os.path.relpath(path, ckpt.dirpath) for role, path in names.items() if path},
    }


def train_without_checkpoints(width=8):
    """The same training with no checkpoint at all; returns the name of its weights."""
    model, optimizer, schedule = parts(width)
    for epoch in range(EPOCHS):
        for batch in batches(epoch):
            learn(model, optimizer, schedule, batch)
    return digest(model)


def _child(order, gate):
    signal.alarm(PATIENCE)
    hold = order.get("hold", 0)
    if not hold:
        os.read(gate, 1)
    acks = os.open(order["acks"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(value):
        os.write(acks, json.dumps(value).encode() + b"\n")

    def held(step):
        if step == hold:
            tell({"held": step})
            os.read(gate, 1)

    if "fault" in order:
        faults.install(order["folder"], **order["fault"])
    if "act" in order:
        acts.ACTS[order["act"]](order["folder"], tell, **order.get("given", {}))
        return
    try:
        train(order["folder"], order["words"], tell, held, **order.get("given", {}))
    except SaveError as error:
        tell({"error": str(error), "errno": error.errno, "path": error.path})
        os._exit(FAILED)
    os._exit(0)


def put_in_place(store, name, chunks, *, over="", gate=None, size=0):
    """Write a checkpoint as most programs do: under its own name from the first byte."""
    os.makedirs(os.path.dirname(store.path(name)), exist_ok=True)
    with open(store.path(name), "wb", buffering=0) as file:
        return sum(file.write(chunk) for chunk in chunks)


def main():
    """Serve; with ``--in-place`` as a saver that is known to be wrong."""
    torch.set_num_threads(1)
    if "--in-place" in sys.argv:
        LocalStore.put = put_in_place
    digests = {words: train_without_checkpoints(width_of(words)) for words in (*WORDS, *BEHIND)}
    print(json.dumps(digests), flush=True)  # noqa: T201 - the answer
    for line in iter(sys.stdin.readline, ""):
        if '"fit"' in line:
            import_module("tests.crash.fitting")  # once, for all children
        gate, key = os.pipe()
        child = os.fork()
        if not child:
            os.close(key)
            _child(json.loads(line), gate)
            return  # to end as any program does
        os.close(gate)
        print(child, flush=True)  # noqa: T201 - the answer
        sys.stdin.readline()
        with contextlib.suppress(BrokenPipeError):  # it was killed before it began
            os.write(key, b"x")
        os.close(key)
        sys.stdin.readline()  # until then a child that has ended keeps its number, and can be killed
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    from tests.crash import acts

    main()
