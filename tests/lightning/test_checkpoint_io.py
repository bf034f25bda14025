"""``CheckpointIO``: usable alone, verified at load, and its files readable by the stock tools."""

from __future__ import annotations

import os
import pickle
import zipfile
from argparse import Namespace
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

import holdfast
from holdfast.errors import CheckpointNotFoundError, DamagedCheckpointError, UnsafeCheckpointError
from holdfast.lightning import CheckpointIO
from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, loader, names, step_of, trainer
from tests.support.lightning_parts import Whole


class Choice:
    """A hyperparameter of the user's own."""

    def __init__(self, width):
        self.width = width

    def __eq__(self, other):
        return isinstance(other, Choice) and other.width == self.width

    def __hash__(self):
        return hash(self.width)


class Chosen(Scripted):
    """Saves the hyperparameters it is given."""

    def __init__(self, **hyperparameters):
        super().__init__()
        self.save_hyperparameters()


HYPERPARAMETERS = [
    {"where": Path("data") / "x"},
    {"options": Namespace(lr=0.1, layers=[1, 2])},
    {"limit": timedelta(hours=1)},
    {"dtype": torch.float16},
    {"choice": Choice(3)},
    {"nested": {"a": [Path("p"), (timedelta(1), Choice(4))], "b": {1, 2}}},
    {"function": torch.nn.functional.relu},
    {"kind": Choice},
]


def _flip(path, record):
    """Change one byte in the middle of a record's data."""
    with zipfile.ZipFile(path) as archive:
        (found,) = [item for item in archive.infolist() if item.filename.endswith("/" + record)]
        size = found.file_size
    with open(path, "r+b") as file:
        file.seek(found.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
        at = found.header_offset + 30 + name + extra + size // 2
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_with_the_stock_callback(tmp_path):
    """``plugins=[CheckpointIO()]`` makes the stock callback's files durable ones with a manifest."""
    cb = Stock(tmp_path / "d", monitor="val_loss", save_top_k=2, save_last=True)
    fit(tmp_path, cb, vals=[5, 3, 4], max_epochs=3, plugins=[CheckpointIO()])
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last.ckpt"]
    facts = holdfast.verify(cb.best_model_path).facts
    assert (facts.step, facts.epoch, facts.kind) == (4, 1, "lightning")
    resumed = fit(tmp_path, max_epochs=4, ckpt_path=cb.best_model_path, plugins=[CheckpointIO()])
    assert resumed.global_step == 8


def test_ours_is_installed_by_our_callback(tmp_path):
    """Without a plugin of the user's our callback brings ours along."""
    made = fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    assert isinstance(made.strategy.checkpoint_io, CheckpointIO)
    assert holdfast.verify(cb.best_model_path) is not None


@pytest.mark.parametrize("make", [TorchCheckpointIO, CheckpointIO])
def test_a_plugin_of_the_user_stays(make, tmp_path):
    """A ``CheckpointIO`` that the user has set is used as it is, whatever its class."""
    mine = make()
    made = fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d", save_last=True), plugins=[mine])
    assert made.strategy.checkpoint_io is mine
    assert step_of(cb.best_model_path) == 4
    assert step_of(cb.last_model_path) == 4


@pytest.mark.parametrize("tool", ["fit", "test", "validate", "predict"])
@pytest.mark.parametrize("record", ["data/0", "data/3", "data.pkl"])
def test_a_flipped_bit_is_refused(record, tool, tmp_path):
    """One changed bit makes every load through the Trainer fail, naming the record."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    _flip(cb.best_model_path, record)
    made = trainer(tmp_path, ModelCheckpoint(tmp_path / "e"))
    with pytest.raises(DamagedCheckpointError) as caught:
        getattr(made, tool)(Whole(), loader(), ckpt_path=cb.best_model_path)
    assert record in caught.value.record
    assert cb.best_model_path in str(caught.value)


def test_a_cut_file_is_refused(tmp_path):
    """A file that lost its end, or all of it, is damaged, not loaded; one that is gone was not found."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    whole = Path(cb.best_model_path).read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        Path(cb.best_model_path).write_bytes(whole[:size])
        with pytest.raises(DamagedCheckpointError):
            fit(tmp_path, ModelCheckpoint(tmp_path / "e"), ckpt_path=cb.best_model_path)
    os.remove(cb.best_model_path)
    with pytest.raises((CheckpointNotFoundError, FileNotFoundError)):
        CheckpointIO().load_checkpoint(cb.best_model_path)


def test_without_verification_a_flip_goes_unseen(tmp_path):
    """``CheckpointIO(verify=False)`` loads as torch does: the check can be switched off."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    _flip(cb.best_model_path, "data/0")
    assert CheckpointIO(verify=False).load_checkpoint(cb.best_model_path)["global_step"] == 2


def test_stock_tools_read_our_files(tmp_path):
    """``torch.load``, ``load_from_checkpoint``, the stock IO and a stock Trainer take our files as they are."""
    model = Scripted()
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), model=model, max_epochs=2)
    path = cb.best_model_path
    weight = model.layer.weight
    assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["layer.weight"], weight)
    assert torch.equal(torch.load(path, mmap=True)["state_dict"]["layer.weight"], weight)
    assert torch.equal(Scripted.load_from_checkpoint(path).layer.weight, weight)
    assert torch.equal(TorchCheckpointIO().load_checkpoint(path)["state_dict"]["layer.weight"], weight)
    stock = fit(tmp_path, Stock(tmp_path / "e"), ckpt_path=path, max_epochs=3, plugins=[TorchCheckpointIO()])
    assert stock.global_step == 6
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_our_file_holds_what_the_stock_file_holds(tmp_path):
    """Key by key and tensor by tensor a checkpoint of ours is one of Lightning's, but for the callback's state."""
    saved = []
    for cls in (Stock, ModelCheckpoint):
        torch.manual_seed(1)
        fit(tmp_path, cb := cls(tmp_path / cls.__module__), max_epochs=2)
        saved.append(torch.load(cb.best_model_path, weights_only=True))
    theirs, ours = saved
    assert list(ours) == list(theirs)
    assert pickle.dumps(_plain({**ours, "callbacks": None})) == pickle.dumps(_plain({**theirs, "callbacks": None}))


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_names_best_and_last(name, tmp_path):
    """``ckpt_path="best"`` and ``"last"`` work in every stage after a fit."""
    made = trainer(tmp_path, ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_last=True), max_epochs=3)
    made.fit(Scripted([5, 3, 4]), loader(), loader())
    for stage in ("test", "validate", "predict"):
        getattr(made, stage)(Whole(), loader(), ckpt_path=name)
        assert step_of(made.ckpt_path) == (4 if name == "best" else 6)


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS, ids=lambda words: next(iter(words)))
def test_ones_own_run_resumes(hyperparameters, tmp_path):
    """Hyperparameters of any class come back when the same model resumes under our callback."""
    cb = ModelCheckpoint(tmp_path / "d", save_last=True)
    fit(tmp_path, cb, model=Chosen(**hyperparameters), max_epochs=1)
    for path in (cb.last_model_path, "last"):
        made = fit(
            tmp_path,
            ModelCheckpoint(tmp_path / "d", save_last=True),
            model=Chosen(**hyperparameters),
            max_epochs=step_of(cb.last_model_path) // 2 + 1,
            ckpt_path=path,
        )
        assert made.lightning_module.hparams == hyperparameters
    made.test(Chosen(**hyperparameters), loader(), ckpt_path="best")


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS[:4], ids=lambda words: next(iter(words)))
def test_plain_values_are_always_allowed(hyperparameters, tmp_path):
    """Paths, namespaces and time intervals load safely anywhere, with no word from the user."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), model=Chosen(**hyperparameters), max_epochs=1)
    loaded = holdfast.load(cb.best_model_path)
    assert loaded["hyper_parameters"] == hyperparameters
    assert CheckpointIO().load_checkpoint(cb.best_model_path)["hyper_parameters"] == hyperparameters


def test_an_unknown_class_is_refused_by_name(tmp_path):
    """A model that does not hold the class may not load it: the error names it and how to allow it."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), model=Chosen(choice=Choice(3)), max_epochs=1)
    with pytest.raises(UnsafeCheckpointError, match=r"allow=\[Choice\]") as caught:
        fit(tmp_path, ModelCheckpoint(tmp_path / "e"), model=Chosen(choice=3), ckpt_path=cb.best_model_path)
    assert caught.value.needs == (f"{__name__}.Choice",)
    made = fit(
        tmp_path,
        ModelCheckpoint(tmp_path / "e"),
        model=Chosen(choice=3),
        ckpt_path=cb.best_model_path,
        plugins=[CheckpointIO(allow=[Choice])],
    )
    assert made.global_step == 4


class Keeper(pl.Callback):
    """Has a state of the user's own class, which it can tell only once training has begun."""

    def __init__(self):
        self.loaded = None

    def on_train_start(self, trainer, pl_module):
        self.choice = Choice(5)

    def state_dict(self):
        return {"choice": self.choice}

    def load_state_dict(self, state_dict):
        self.loaded = state_dict["choice"]


class Ready(Keeper):
    """The same, with a state from the beginning."""

    choice = Choice(4)


def test_states_of_other_callbacks(tmp_path):
    """A callback whose state cannot be told before training starts does no harm; one that can comes back."""
    fit(tmp_path, ModelCheckpoint(tmp_path / "a"), Keeper(), max_epochs=1)
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "b"), Ready(), max_epochs=1)
    ready = Ready()
    fit(tmp_path, ModelCheckpoint(tmp_path / "b"), ready, max_epochs=2, ckpt_path=cb.best_model_path)
    assert ready.loaded == Choice(5)


def test_the_whole_file_may_be_trusted(tmp_path):
    """``weights_only=False``, said to the Trainer, loads what it names."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), model=Chosen(choice=Choice(3)), max_epochs=1)
    made = trainer(tmp_path, ModelCheckpoint(tmp_path / "e"), max_epochs=2)
    made.fit(Chosen(choice=3), loader(), ckpt_path=cb.best_model_path, weights_only=False)
    assert made.global_step == 4


class Exploding:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_code_of_a_file_runs(tmp_path):
    """A checkpoint made to run code is refused, and the code has not run."""
    fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    checkpoint = torch.load(cb.best_model_path, weights_only=True)
    checkpoint["hyper_parameters"] = {"x": Exploding(str(tmp_path / "ran"))}
    torch.save(checkpoint, tmp_path / "evil.ckpt")
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        fit(tmp_path, ModelCheckpoint(tmp_path / "e"), ckpt_path=str(tmp_path / "evil.ckpt"))
    assert not (tmp_path / "ran").exists()


def test_storage_options_are_refused(tmp_path):
    """``storage_options`` that would be ignored are an error, as with Lightning's own IO."""
    made = fit(tmp_path, ModelCheckpoint(tmp_path / "d"), max_epochs=1)
    with pytest.raises(TypeError, match="storage_options"):
        made.save_checkpoint(tmp_path / "x.ckpt", storage_options={"a": 1})


def test_saving_by_hand(tmp_path):
    """``trainer.save_checkpoint(path)`` writes a verified file, and harms no ranking."""
    made = fit(tmp_path, cb := ModelCheckpoint(tmp_path / "d", monitor="val_loss"), max_epochs=1)
    made.save_checkpoint(tmp_path / "mine.ckpt")
    assert holdfast.verify(tmp_path / "mine.ckpt").facts.reason == "requested"
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt"]
    assert len(cb.best_k_models) == 1
