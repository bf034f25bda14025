"""The training of several ranks, to an object store, of which one rank may be killed at a request of its own."""

from __future__ import annotations

import os
import signal
import threading

import torch.distributed as dist

from holdfast.storage.remote.connect import wrapping
from tests.crash import rank_training
from tests.ranks import jobs_there

CHANGES = ("put", "begin", "part", "complete", "copy", "remove")
LOOKS = ("list", "head", "get")


class Deadly:
    """Requests of which one ends the process, before it is sent or once it was answered."""

    left = 0
    after = False
    kinds = CHANGES
    lock = threading.Lock()

    def __init__(self, objects):
        self._objects = objects

    def __getattr__(self, name):
        real = getattr(self._objects, name)
        if name not in self.kinds:
            return real

        def call(*args, **words):
            with Deadly.lock:
                Deadly.left -= 1
                mine = Deadly.left == 0
            if mine and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*args, **words)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def train(options, url, words, acks, fault=None):
    """As ``rank_training.train``; a fault says which rank dies, at which of its requests, before it or after."""
    jobs_there.tell(options)
    rank_training.STEPS = words["steps"]
    if fault is None or fault["rank"] != dist.get_rank():
        rank_training.train(url, "sharded", words["mode"], acks)
        return
    Deadly.left, Deadly.after = fault["at"], fault["after"]
    Deadly.kinds = CHANGES if fault["changes"] else CHANGES + LOOKS
    with wrapping(Deadly):
        rank_training.train(url, "sharded", words["mode"], acks)
