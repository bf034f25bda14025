"""torch's and safetensors' own ways of saving, synchronous and in a thread."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.limits import Buffer, sync, write
from benchmarks.saver import Saver, Variant
from benchmarks.states import State, Training


class LimitDisk(Saver):
    """The same bytes from warm memory to the disk, durably. No state is looked at."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._buffer = Buffer(training.nbytes)

    def save(self) -> None:
        """Write."""
        write(self._buffer, self.next_path())

    def close(self) -> None:
        """Free the buffer."""
        self._buffer.close()


class LimitMemory(Saver):
    """The same bytes from warm memory to warm memory."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._buffers = Buffer(training.nbytes), Buffer(training.nbytes)

    def save(self) -> None:
        """Copy."""
        source, target = self._buffers
        target.tensor.copy_(source.tensor)

    def close(self) -> None:
        """Free the buffers."""
        for buffer in self._buffers:
            buffer.close()


class Behind(Saver):
    """Saves from a thread, one at a time."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def hand_over(self, write: Callable[..., None], *what: Any) -> None:
        """Let the thread write."""
        self._pending = self._pool.submit(write, *what)

    def wait(self) -> None:
        """Wait for the thread."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


class LimitBehind(Behind):
    """The same bytes from memory to memory, then from a thread to the disk, durably; one at a time."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._buffers = Buffer(training.nbytes), Buffer(training.nbytes)

    def save(self) -> None:
        """Wait for the write before, copy, hand over."""
        self.wait()
        source, target = self._buffers
        target.tensor.copy_(source.tensor)
        self.hand_over(self._write, self.next_path())

    def _write(self, path: str) -> None:
        write(self._buffers[1], path)
        self.retire()

    def close(self) -> None:
        """End the thread, free the buffers."""
        super().close()
        for buffer in self._buffers:
            buffer.close()


class TorchSave(Saver):
    """``torch.save`` into a file."""

    durable = True

    def save(self) -> None:
        """Save."""
        self._write(self.training.state(), self.next_path())

    def _write(self, state: State, path: str) -> None:
        torch.save(state, path)
        if self.durable:
            sync(path)
            sync(os.path.dirname(path))
        self.retire()


class TorchSaveOnly(TorchSave):
    """``torch.save`` without the fsync."""

    durable = False


class TorchSaveThread(Behind, TorchSave):
    """A deep copy of the state, which a thread saves; one at a time."""

    def save(self) -> None:
        """Wait for the save before, copy, hand over."""
        self.wait()
        self.hand_over(self._write, copied(self.training.state()), self.next_path())


class SafetensorsSave(Saver):
    """``safetensors``: the tensors alone, of model and optimizer."""

    def save(self) -> None:
        """Save."""
        path = self.next_path()
        save_file(dict(self.training.tensors()), path)
        sync(path)
        sync(os.path.dirname(path))
        self.retire()


def copied(value: Any) -> Any:
    """Return a deep copy of a state; tensors of a GPU are copied to the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return copy.deepcopy(value)


LIMIT_DISK = Variant("limit: disk", LimitDisk)
LIMIT_MEMORY = Variant("limit: memcpy", LimitMemory, durable="no")
LIMIT_BEHIND = Variant("limit: memcpy, then disk in a thread", LimitBehind)
TORCH_SAVE = Variant("torch.save + fsync", TorchSave)
TORCH_SAVE_ONLY = Variant("torch.save", TorchSaveOnly, durable="no")
TORCH_SAVE_THREAD = Variant("deepcopy, torch.save + fsync in a thread", TorchSaveThread)
SAFETENSORS = Variant("safetensors save_file + fsync", SafetensorsSave)
