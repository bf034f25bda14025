"""Saves behind the Trainer's back leave the training as it is, bit for bit, and are whole."""

from __future__ import annotations

import ctypes
import threading

import lightning.pytorch as pl
import pytest
import torch

from holdfast import verify
from holdfast.engine.flight import Flight
from holdfast.snapshot import copying
from tests.support.lightning_cases import ModelCheckpoint, fit, names, quietly, step_of
from tests.support.lightning_models import Scripted
from tests.support.lightning_parts import Manual, Probe
from tests.support.states import same

PATIENCE = 20  # seconds after which what hangs fails


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users: behind the training's back, and nobody waits."""


class Large(Scripted):
    """Parameters large enough to be copied later, dropout, and a buffer that the forward writes."""

    make = staticmethod(lambda parameters: torch.optim.AdamW(parameters, lr=0.01))

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first = torch.nn.Linear(4, 20_000)
        self.drop = torch.nn.Dropout(0.5)
        self.layer = torch.nn.Linear(20_000, 2)
        self.register_buffer("seen", torch.zeros(20_000))
        self.looks = []

    def forward(self, batch):
        self.seen.add_(1.0)
        return self.layer(self.drop(self.first(batch)))

    def training_step(self, batch, batch_idx):
        for look in self.looks:
            look()
        loss = self(batch[0]).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return self.make(self.parameters())


class LargeSGD(Large):
    make = staticmethod(lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9))


class LargeLBFGS(Large):
    make = staticmethod(lambda parameters: torch.optim.LBFGS(parameters, lr=1e-3, max_iter=2))


class LargeManual(Large):
    """Manual optimization, with two optimizers that step one after the other."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (self.first, self.layer)]


OPTIONS = {
    "plain": (Large, {}),
    "clipped": (Large, {"gradient_clip_val": 0.1}),
    "accumulated": (LargeSGD, {"accumulate_grad_batches": 2}),
    "lbfgs": (LargeLBFGS, {}),
    "manual": (LargeManual, {}),
    "bf16": (Large, {"precision": "bf16-mixed"}),
}
WAYS = {
    "behind": {},
    "overlapped": {"overlap": True},
    "two images": {"overlap": True, "images": 2},
    "no copy": {"zero_copy": True},
    "recycled": {"recycle_blocks": True},
}


def result(folder, option, *callbacks):
    kind, words = OPTIONS[option]
    model = kind()
    made, _ = quietly(
        fit, folder, *callbacks, model=model, batches=4, max_epochs=2, enable_checkpointing=bool(callbacks), **words
    )
    return {
        "model": model.state_dict(),
        "optimizers": [item.state_dict() for item in made.optimizers],
        "chance": torch.rand(2),
    }


_bare = {}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("option", OPTIONS)
def test_training_is_unchanged(tmp_path, option, way):
    """With a save at every step the weights, the moments and the generator end with the bits they have without."""
    if option not in _bare:
        _bare[option] = result(tmp_path, option)
    top = 1 if way == "recycled" else -1
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=1, save_top_k=top, **WAYS[way])
    assert same(result(tmp_path, option, cb), _bare[option])
    assert cb.stats.saves >= 4


@pytest.mark.parametrize("option", OPTIONS)
def test_overlapped_saves_are_whole(tmp_path, option):
    """Under the Trainer, each overlapped save holds the weights and moments of its step."""
    oracles = {}

    def remember(made):
        import copy

        state = made.lightning_module.state_dict(), [item.state_dict() for item in made.optimizers]
        oracles.setdefault(made.global_step, copy.deepcopy(state))

    kind, words = OPTIONS[option]
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=1, save_top_k=-1, overlap=True, filename="{step}")
    _, messages = quietly(
        fit,
        tmp_path,
        cb,
        Probe(on_train_batch_end=remember),
        model=kind(),
        batches=4,
        max_epochs=2,
        validate=False,
        **words,
    )
    assert not [text for text in messages if "not saved" in text]
    there = names(tmp_path / "d")
    assert len(there) >= 4
    for name in there:
        verify(tmp_path / "d" / name)
        loaded = torch.load(tmp_path / "d" / name, weights_only=False)
        weights, optimizers = oracles[loaded["global_step"]]
        assert same(loaded["state_dict"], weights)
        assert same(loaded["optimizer_states"], optimizers)


class HeldCopy:
    """A stand-in for the module that copies by: off the training's thread it stands still until ``go`` is set."""

    def __init__(self, go):
        self._go = go

    def memmove(self, *given):
        if threading.current_thread() is not threading.main_thread():
            assert self._go.wait(PATIENCE)
        return ctypes.memmove(*given)

    def __getattr__(self, name):
        return getattr(ctypes, name)


def hold_copies(monkeypatch):
    """Let every copy stand still until training waits for it; returns what it waited at, as it comes about."""
    go, seen = threading.Event(), []
    monkeypatch.setattr(copying, "ctypes", HeldCopy(go))
    for name in ("fence", "wait"):
        original = getattr(Flight, name)

        def let(flight, name=name, original=original):
            if flight.taken.later and not flight.done:
                seen.append(name)
            go.set()
            original(flight)

        monkeypatch.setattr(Flight, name, let)
    prepare = Flight.__post_init__

    def begin_held(flight):
        go.clear()
        prepare(flight)

    monkeypatch.setattr(Flight, "__post_init__", begin_held)
    return seen


@pytest.mark.parametrize("option", ["plain", "clipped", "manual", "lbfgs"])
def test_the_copy_runs_during_forward_and_backward(tmp_path, monkeypatch, option):
    """With ``overlap`` a copy that stands still holds neither forward nor backward back, only the optimizer's step."""
    seen = hold_copies(monkeypatch)
    kind, words = OPTIONS[option]
    model = kind()
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=2, save_top_k=-1, overlap=True)
    standing = lambda: any(flight.taken.later and not flight._read.is_set() for flight, _ in cb._saver._flights)  # noqa: E731

    def forward():
        if cb._saver is not None and standing():
            seen.append("forward")

    model.looks.append(forward)
    hooks = {
        "on_after_backward": lambda made: seen.append("backward") if cb._saver is not None and standing() else None,
    }
    fit(tmp_path, Probe(**hooks), cb, model=model, batches=8, max_epochs=1, validate=False, **words)
    if option == "lbfgs":
        assert "forward" not in seen or seen.index("forward") < seen.index("fence")
        return
    begin = seen.index("forward")
    assert seen[begin : begin + 3] == ["forward", "backward", "fence"]


def test_manual_steps_without_torchs_optimizer_are_never_torn(tmp_path):
    """Weights written by hand in ``training_step``: each file is of its step, or given up aloud."""
    oracles = {}

    class ByHand(Large):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
            with torch.no_grad():
                for item in self.parameters():
                    item.sub_(item.grad, alpha=1e-3)
                    item.grad = None

        def on_train_batch_start(self, batch, batch_idx):
            oracles[batch_idx] = {name: value.clone() for name, value in self.state_dict().items()}

    class Count(pl.Callback):
        def on_train_batch_end(self, made, module, outputs, batch, batch_idx):
            cb.save_checkpoint(made)

    cb = ModelCheckpoint(tmp_path / "d", every_n_epochs=50, save_top_k=-1, overlap=True, filename="by-{step}")
    quietly(fit, tmp_path, Count(), cb, model=ByHand(), batches=5, max_epochs=1, validate=False)
    there = names(tmp_path / "d")
    assert there
    for name in there:
        weights = torch.load(tmp_path / "d" / name, weights_only=False)["state_dict"]
        # Saved behind batch n, so as batch n + 1 begins; the last has nothing behind it.
        assert any(all(torch.equal(weights[key], value) for key, value in one.items()) for one in oracles.values()) or (
            name == there[-1]
        )


def test_a_callback_serves_two_trainers(tmp_path):
    """A callback whose first training ended goes on with the next, with nothing left over on its way."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    fit(tmp_path, cb, vals=[5], max_epochs=1)
    assert cb._pending == []
    fit(tmp_path, cb, vals=[4], max_epochs=1)
    assert step_of(cb.best_model_path) == 2


def test_manual_optimization_counts_every_step(tmp_path):
    """With several manual steps a batch, saves behind the training's back land on the steps they are due."""
    cb = ModelCheckpoint(tmp_path / "d", every_n_train_steps=2, save_top_k=-1, overlap=True)
    fit(tmp_path, cb, model=Manual(optimizers=2), batches=3, max_epochs=1, validate=False)
    assert sorted(step_of(tmp_path / "d" / name) for name in names(tmp_path / "d")) == [2, 4, 6]
