"""Lightning's ``AsyncCheckpointIO`` under our callback: a file counts when it is there, and not before."""

from __future__ import annotations

import os
import threading
import time

import pytest
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO

from holdfast.lightning import CheckpointIO
from tests.support.lightning_cases import ModelCheckpoint, fit, names, quietly, step_of
from tests.support.lightning_parts import Probe


def gated(base):
    """A ``CheckpointIO`` class that writes nothing before it is let."""

    class Gated(base):
        def __init__(self):
            super().__init__()
            self.gate = threading.Semaphore(0)

        def save_checkpoint(self, *arguments, **options):
            self.gate.acquire()
            super().save_checkpoint(*arguments, **options)

    return Gated()


BASES = pytest.mark.parametrize("base", [TorchCheckpointIO, CheckpointIO], ids=["torch", "holdfast"])


def _train(folder, io, *probes, vals, **words):
    """Train one epoch a value; whatever is still waiting is written at the end."""
    cb = ModelCheckpoint(folder / "d", monitor="val_loss", **words)
    release = Probe(on_train_end=lambda _: io.gate.release(99))
    made, messages = quietly(
        fit,
        folder,
        cb,
        *probes,
        release,
        vals=vals,
        max_epochs=len(vals),
        plugins=[AsyncCheckpointIO(io)],
    )
    assert isinstance(made.strategy.checkpoint_io, AsyncCheckpointIO)
    return cb, messages


def _written(io, path):
    """Let one file be written, and wait until it is there."""
    io.gate.release()
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@BASES
def test_the_best_are_kept_though_all_come_late(base, tmp_path):
    """When every file is written at the very end, the best k are there and are what the attributes name."""
    cb, messages = _train(tmp_path, gated(base), vals=[5, 3, 4, 2], save_top_k=2)
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {4: 3.0, 8: 2.0}
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt"]
    assert not [text for text in messages if "never committed" in text]


@BASES
def test_nothing_is_removed_before_its_successor_is_there(base, tmp_path):
    """The old best stays, and stays best, until the new one is committed."""
    io = gated(base)
    seen = []

    def look(made):
        if made.global_step == 4:
            _written(io, tmp_path / "d" / "epoch=0-step=2.ckpt")
        seen.append((names(tmp_path / "d"), names(tmp_path / "d") and os.path.basename(holder[0].best_model_path)))

    holder = []
    probe = Probe(on_train_epoch_start=look, on_fit_start=lambda made: holder.append(made.checkpoint_callback))
    cb, _ = _train(tmp_path, io, probe, vals=[5, 4, 3, 2])
    first = ["epoch=0-step=2.ckpt"]
    assert seen == [([], []), ([], []), (first, ""), (first, first[0])]
    assert names(tmp_path / "d") == ["epoch=3-step=8.ckpt"]
    assert step_of(cb.best_model_path) == 8


@BASES
def test_last_follows(base, tmp_path):
    """``last`` is brought up when the file that it names a second time has appeared."""
    io = gated(base)
    seen = []

    def look(made):
        if made.current_epoch:
            _written(io, tmp_path / "d" / f"epoch={made.current_epoch - 1}-step={made.global_step}.ckpt")
        last = tmp_path / "d" / "last.ckpt"
        seen.append(step_of(last) if last.exists() else 0)

    cb, _ = _train(tmp_path, io, Probe(on_train_epoch_start=look), vals=[5, 4, 3], save_last=True)
    assert seen == [0, 0, 2]
    assert step_of(cb.last_model_path) == 6
    assert names(tmp_path / "d") == ["epoch=2-step=6.ckpt", "last.ckpt"]


@BASES
def test_last_is_never_set_back(base, tmp_path):
    """A ``last`` that was written by itself is not replaced by the second name of an older state."""
    cb, _ = _train(tmp_path, gated(base), vals=[5, 6, 7], save_last=True)
    assert step_of(cb.last_model_path) == 6
    assert list(cb.best_k_models) == [cb.best_model_path] == [str(tmp_path / "d" / "epoch=0-step=2.ckpt")]
    assert step_of(tmp_path / "d" / "last.ckpt") == 6


@BASES
def test_a_constant_name_is_not_given_twice(base, tmp_path):
    """Two saves that are both still waiting get two names."""
    cb, _ = _train(tmp_path, gated(base), vals=[5, 4, 3], save_top_k=2, filename="model")
    assert sorted(float(score) for score in cb.best_k_models.values()) == [3.0, 4.0]
    assert sorted(step_of(path) for path in cb.best_k_models) == [4, 6]
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {4: 4.0, 6: 3.0}
    assert sorted(cb.best_k_models) == [str(tmp_path / "d" / name) for name in names(tmp_path / "d")]


@BASES
def test_a_failed_background_write_is_never_named(base, tmp_path):
    """A write that fails behind the training's back leaves no name, and the run says so."""

    class Failing(base):
        def save_checkpoint(self, *arguments, **options):
            raise OSError(28, "No space left on device")

    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, cb, vals=[5, 4], max_epochs=2, plugins=[AsyncCheckpointIO(Failing())])
    assert (cb.best_model_path, cb.best_k_models) == ("", {})
