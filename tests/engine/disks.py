"""A disk that waits and fails when a test says so, and the loops that save to it."""

from __future__ import annotations

import errno
import os
import threading

import torch

from holdfast import Checkpointer

PATIENCE = 20  # seconds after which what hangs fails


class Disk:
    """A disk that writes a file when it is let, and fails when it is told.

    Attributes:
        order: the names of the files, as they were committed.

    """

    def __init__(self):
        self.closed = False
        self.failing = set()
        self.order = []
        self._permits = threading.Semaphore(0)

    def let(self, count=1):
        self._permits.release(count)

    def open(self):
        self.closed = False
        self._permits.release(1000)

    def put(self, original, store, name, chunks, **words):
        if self.closed:
            assert self._permits.acquire(timeout=PATIENCE)
        size = original(store, name, full(chunks) if name in self.failing else chunks, **words)
        self.order.append(name)
        return size


def full(chunks):
    """Hand on the first of the bytes, and then no more."""
    yield next(iter(chunks))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def checkpointer(folder, **words):
    model = torch.nn.Linear(2, 2)
    return Checkpointer(folder, **{"model": model, "every_n_train_steps": 1, "filename": "{step}", **words})


def landed(ckpt):
    """Wait until what was let to the disk is done, without telling the checkpointer of it."""
    for flight in ckpt._flights:
        assert flight._done.wait(PATIENCE)
