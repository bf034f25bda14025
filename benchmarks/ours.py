"""holdfast's ways of saving and loading: the only place of the benchmarks that knows its interface."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import holdfast
from benchmarks.saver import Saver, Variant
from benchmarks.states import State, Training


class HoldfastSync(Saver):
    """The ``CheckpointIO``: the same state and path as its peers get; durable when it returns."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        from holdfast.lightning import CheckpointIO  # noqa: PLC0415 - a GPU machine may have no Lightning

        super().__init__(training, folder, retain=retain)
        self._io = CheckpointIO()

    def save(self) -> None:
        """Save."""
        self._io.save_checkpoint(self.training.state(), self.next_path())
        self.retire()

    def close(self) -> None:
        """Let go of the plugin."""
        self._io.teardown()


class HoldfastLoop(Saver):
    """The ``Checkpointer`` of a plain loop, which saves at every ``step`` it is told of.

    Args:
        training: whose state is saved.
        folder: the checkpoints' directory.
        retain: keep the newest only.
        options: of the ``Checkpointer``.

    """

    def __init__(self, training: Training, folder: str, *, retain: bool = False, **options: Any) -> None:
        super().__init__(training, folder, retain=retain)
        self._ckpt = holdfast.Checkpointer(
            folder,
            model=training.model,
            optimizer=training.optimizer,
            every_n_train_steps=1,
            save_top_k=1 if retain else -1,
            **options,
        )

    def save(self) -> None:
        """Say that a step is done, which saves."""
        self.asked += 1
        self._ckpt.step()

    def fence(self) -> None:
        """Wait until the optimizer may change the state; the optimizer's own hook finds it done."""
        self._ckpt.fence()

    def wait(self) -> None:
        """Wait for the commits."""
        self._ckpt.wait()

    def close(self) -> None:
        """End the engine and give back its memory."""
        self._ckpt.close()

    @property
    def committed(self) -> int:
        """How many saves were committed, by the engine's own count."""
        return self._ckpt.stats.committed


class HoldfastRecycled(HoldfastLoop):
    """Writes over the blocks of a checkpoint that retention has dropped: it has to keep the newest only."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:  # noqa: ARG002 - always
        super().__init__(training, folder, retain=True, async_save=True, recycle_blocks=True)

    def clean(self) -> None:
        """Leave the files: they are what is written over."""


def load(path: str) -> State:
    """Load and verify into new tensors."""
    state: State = holdfast.load(path)
    return state


def resume(training: Training, folder: str) -> None:
    """Load and verify the newest checkpoint into the living model and optimizer."""
    ckpt = holdfast.Checkpointer(
        folder, model=training.model, optimizer=training.optimizer, every_n_train_steps=10**9, save_top_k=-1
    )
    ckpt.resume()
    ckpt.close()


def idle(folder: str, training: Training) -> holdfast.Checkpointer:
    """Return a checkpointer of which no save falls due."""
    return holdfast.Checkpointer(folder, model=training.model, optimizer=training.optimizer, every_n_train_steps=10**12)


def write_for_loading(training: Training, folder: str) -> str:
    """Save with the ``Checkpointer``, so that ``resume`` finds it; return the path."""
    with holdfast.Checkpointer(
        folder, model=training.model, optimizer=training.optimizer, every_n_train_steps=1, save_top_k=-1
    ) as ckpt:
        ckpt.step()
    return next(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".ckpt"))


def _loop(**options: Any) -> Any:
    return partial(HoldfastLoop, **options)


SYNC = Variant("holdfast", HoldfastSync, warmups=2)
COPY = Variant("holdfast", _loop(), warmups=2)
OVERLAP = Variant("holdfast, overlapped", _loop(overlap=True), overlapped=True, warmups=2)
RECYCLED = Variant("holdfast, recycled blocks", HoldfastRecycled, warmups=3)
ZERO_COPY = Variant(
    "holdfast, state lives in the image", _loop(zero_copy=True), overlapped=True, warmups=2, own_training=True
)
ASYNCHRONOUS = (COPY, OVERLAP, RECYCLED, ZERO_COPY)
