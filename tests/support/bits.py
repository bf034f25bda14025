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
    """Tells, after each step of a loop, of which step's save it is now known that it is committed.

    Saves land in their order, and more of them may be on their way than there are images: one is out of its image
    before it has landed. Where of several that land at a time one has failed, none is told: it is not known which.
    """

    def __init__(self, ckpt):
        self._ckpt = ckpt
        self._begun, self._committed = ckpt.stats.saves, ckpt.stats.committed
        self._under_way = collections.deque()

    def after(self, step):
        """The newest step whose save the last call has acknowledged, or None."""
        stats = self._ckpt.stats
        begun, committed = stats.saves - self._begun, stats.committed - self._committed
        self._begun, self._committed = stats.saves, stats.committed
        if begun:
            self._under_way.append(step)
        landed = [self._under_way.popleft() for _ in range(len(self._under_way) - len(self._ckpt._waiting))]
        if not landed:
            return step if committed else None  # a save that nothing goes on behind is not counted as begun
        return landed[-1] if committed == len(landed) else None


class Waited:
    """Acknowledges a save when ``wait()`` has returned for it, and the count of what is committed agrees.

    To be asked before the next step of the checkpointer: so there is never more than one save that is not known of.
    """

    def __init__(self, ckpt):
        self._ckpt = ckpt
        self._pending = 0
        self._begun, self._committed = ckpt.stats.saves, ckpt.stats.committed

    def begun(self, step):
        """Behind a step: take note of the save that it has begun, if it has."""
        if self._ckpt.stats.saves > self._begun:
            self._pending = step
        self._begun = self._ckpt.stats.saves

    def settled(self):
        """What became of the save that is on its way, as a line to tell; None if there is none."""
        step, self._pending = self._pending, 0
        why = ""
        try:
            self._ckpt.wait()
        except holdfast.HoldfastError as error:
            why = str(error)
        before, self._committed = self._committed, self._ckpt.stats.committed
        if self._committed - before > bool(step):
            return {"odd": f"{self._committed - before} commits while the save of step {step} was on its way"}
        if not step:
            return None
        if self._committed == before:  # it has failed: that was raised now, or warned of in the step itself
            return {"failed": step, "why": why}
        return {"acknowledged": step, "linked": not why}
