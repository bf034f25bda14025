"""The weights and the optimizer's state as one short name, and what a checkpointer has acknowledged."""

from __future__ import annotations

import collections
import hashlib

import torch

import holdfast


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _tensors(value[key])


def digest(weights, state):
    """A name for weights and optimizer state, to the bit."""
    found = hashlib.sha256()
    for tensor in (*_tensors(weights), *_tensors(state)):
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:20]


def digest_of_parts(model, optimizer):
    """The same for what is being trained."""
    return digest(model.state_dict(), optimizer.state_dict()["state"])


def digest_of_file(path):
    """The same for a checkpoint; it is loaded, so every byte of it is verified."""
    state = holdfast.load(path)
    return digest(state["state_dict"], state["optimizer_states"][0]["state"])


class Acknowledged:
    """Tells, after each step of a loop, of which step's save it is now known that it is committed."""

    def __init__(self, ckpt, images=1):
        self._ckpt = ckpt
        self._begun, self._committed = ckpt.stats.saves, ckpt.stats.committed
        self._under_way = collections.deque(maxlen=images)  # what failed falls out of it

    def after(self, step):
        """The step whose save the last call has acknowledged, or None."""
        stats, known = self._ckpt.stats, None
        if stats.committed > self._committed:
            known = self._under_way.popleft() if self._under_way else step
        if stats.saves > self._begun:
            self._under_way.append(step)
        self._begun, self._committed = stats.saves, stats.committed
        return known
