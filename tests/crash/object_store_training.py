"""The training of the laps: to a bucket, or to a folder with a mirror in a bucket, from wherever it left off.

Each step's weights depend on the steps before it and on nothing else. What it does it says line by line, and what it
was told to be committed is durable in that file before it goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings

import torch

from holdfast import Checkpointer, HoldfastError
from holdfast.storage.options import remember
from holdfast.storage.remote import parts as cutting
from holdfast.storage.remote import uploading
from holdfast.storage.remote.connect import wrapping
from tests.support.bits import Waited, digest_of_parts

EVERY, TOP = 2, 3
WORDS = {"monitor": "loss", "save_top_k": TOP, "save_last": True, "every_n_train_steps": EVERY}
PART = 5 << 20  # the least that a real server takes
LARGE = 11 << 18  # numbers in the ballast: three parts
LETTERS = {"put": "p", "begin": "b", "part": "t", "complete": "e", "copy": "y", "remove": "r", "abort": "a"}
LOOK = "l"  # any other request
ENOUGH = 400  # steps of a life that nobody ends
FAILED = 3  # its exit code after an error of ours


class Net(torch.nn.Module):
    """A layer with dropout, and a ballast that each step moves."""

    def __init__(self, ballast):
        super().__init__()
        torch.manual_seed(5)
        self.inner = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 16))
        self.register_buffer("ballast", torch.arange(ballast, dtype=torch.float32))

    def forward(self, batch):
        return self.inner(batch)


def parts(ballast):
    """A model and its optimizer, from one seed."""
    model = Net(ballast)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def learn(model, optimizer, step):
    """One step, on the batch that its number decides; dropout draws from torch's generator."""
    batch = torch.rand(8, 16, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(batch), batch).backward()
    optimizer.step()
    model.ballast += 0.5


def loss_at(step):
    """A score for each step, no two the same, good and bad ones among each other."""
    return int.from_bytes(hashlib.sha256(str(step).encode()).digest()[:6], "big") / 2**48


def train(order, announce, gate):
    """Be one life: train until the order's last step, or until the gate is written to; then close."""
    descriptor = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(**what):
        os.write(descriptor, json.dumps(what).encode() + b"\n")
        os.fsync(descriptor)

    warnings.simplefilter("always")
    warnings.showwarning = lambda message, *_, **__: tell(warned=str(message))
    os.set_blocking(gate, False)
    cutting.PART = uploading.PART = PART
    remember(order["bucket"], order["options"])
    log = logging.getLogger("holdfast")
    log.setLevel(logging.INFO)
    log.addHandler(_Aborted(tell))
    with wrapping(lambda objects: Announced(objects, announce)):
        try:
            _train(order, tell, lambda: bool(_read(gate)))
        except (HoldfastError, ConnectionError) as error:
            tell(error=str(error), kind=type(error).__name__)
            return FAILED
    return 0


def _train(order, tell, ended):
    model, optimizer = parts(order["ballast"])
    words = {**WORDS, "on_error": "warn", "max_failures": 10**6, **order["words"]}
    with Checkpointer(order["place"], model=model, optimizer=optimizer, **words) as ckpt:
        start = ckpt.resume()
        tell(resumed=start.step, tier=start.tier, skipped=[str(item) for item in start.skipped])
        if start.step:
            tell(step=start.step, digest=digest_of_parts(model, optimizer), missed=list(start.missed))
        waited, newest = Waited(ckpt), 0
        while ckpt.global_step < order.get("until", ENOUGH) and not ended():
            step = ckpt.global_step + 1
            learn(model, optimizer, step)
            tell(step=step, digest=digest_of_parts(model, optimizer))
            newest = _settle(waited, tell) or newest  # the save goes on behind the step that has just been learned
            ckpt.step({"loss": loss_at(step)})
            waited.begun(step)
            if ckpt.mirror is not None and newest and step % (2 * EVERY) == 0 and ckpt.mirror.wait(timeout=0.3):
                tell(mirrored=newest)
        _settle(waited, tell)
        committed, mirror = ckpt.stats.committed, ckpt.mirror
    if ckpt.stats.committed > committed:
        tell(final=ckpt.global_step)  # as ``last`` alone: it is not ranked
    tell(closed=ckpt.global_step, settled=mirror is None or mirror.status.settled)


def _settle(waited, tell):
    """Tell what became of the save that was on its way; return its step if it was acknowledged, else 0."""
    said = waited.settled() or {}
    if said:
        tell(**said)
    return said.get("acknowledged", 0)


def _read(gate):
    try:
        return os.read(gate, 1)
    except BlockingIOError:
        return b""


class _Aborted(logging.Handler):
    """Tells of the uploads that a run found dead, and aborted."""

    def __init__(self, tell):
        super().__init__()
        self._tell = tell

    def emit(self, record):
        if str(record.msg).startswith("aborted an upload"):
            self._tell(aborted=record.getMessage())


class Announced:
    """Requests that are announced, one letter each, just before they are sent."""

    def __init__(self, objects, announce):
        self._objects, self._announce = objects, announce

    def __getattr__(self, name):
        real = getattr(self._objects, name)
        if not callable(real):
            return real
        letter = LETTERS.get(name, LOOK).encode()

        def call(*args, **words):
            os.write(self._announce, letter)
            return real(*args, **words)

        return call
