"""The twin for the package ``pytorch_lightning``, whose classes are not those of ``lightning``."""

from __future__ import annotations

import inspect
import pickle

import pytest
import torch

import holdfast
import holdfast.lightning
from holdfast.errors import DamagedCheckpointError
from tests.support.lightning_cases import names, step_of
from tests.support.lightning_models import loader
from tests.support.ranks import run_ranks

pl = pytest.importorskip("pytorch_lightning")
twin = pytest.importorskip("holdfast.pytorch_lightning")


class Model(pl.LightningModule):
    """Logs ``val_loss`` from a script."""

    def __init__(self, vals):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        self.vals = list(vals)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", float(self.vals[min(self.current_epoch, len(self.vals) - 1)]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def _fit(root, *callbacks, vals=(5, 3, 4), ckpt_path=None, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    made = pl.Trainer(default_root_dir=root, callbacks=list(callbacks), **{**quiet, "max_epochs": len(vals), **options})
    made.fit(Model(vals), loader(), loader(), ckpt_path=ckpt_path)
    return made


def test_a_whole_run(tmp_path):
    """Ranking, last, resume and the names ``best`` and ``last`` work on the other package's Trainer."""
    words = {"dirpath": tmp_path / "d", "monitor": "val_loss", "save_top_k": 2, "save_last": True}
    made = _fit(tmp_path, twin.ModelCheckpoint(**words))
    assert isinstance(made.strategy.checkpoint_io, twin.CheckpointIO)
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last.ckpt"]
    made.validate(Model([1]), loader(), ckpt_path="best")
    assert step_of(made.ckpt_path) == 4
    again = twin.ModelCheckpoint(**words)
    _fit(tmp_path, again, vals=[5, 3, 4, 2], ckpt_path="last")
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert float(again.best_model_score) == 2.0


def test_its_classes_are_its_own():
    """The twin is a subclass of the other package's callback, and of none of ``lightning``'s."""
    from lightning.pytorch.callbacks import ModelCheckpoint as Other
    from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

    cb = twin.ModelCheckpoint()
    assert isinstance(cb, ModelCheckpoint)
    assert isinstance(cb, Checkpoint)
    assert not isinstance(cb, Other)


def test_its_errors_are_its_own():
    """A wrong word raises the exception class that the other package's users catch."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    with pytest.raises(MisconfigurationException, match="save_top_k=-2"):
        twin.ModelCheckpoint(save_top_k=-2)


def test_no_logic_of_its_stock_class_is_reachable():
    """Every method of the other package's class is ours as well, or says that it is not there."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    for name, value in vars(ModelCheckpoint).items():
        if not name.startswith("__") and (callable(value) or isinstance(value, (property, staticmethod))):
            assert inspect.getattr_static(twin.ModelCheckpoint, name) is not value, name


def test_both_packages_read_each_others_files(tmp_path):
    """A run of one package is resumed in the other, and keeps its ranking."""
    from tests.support.lightning_cases import Scripted, fit

    words = {"dirpath": tmp_path / "d", "monitor": "val_loss", "save_top_k": 2}
    fit(tmp_path, holdfast.lightning.ModelCheckpoint(**words), model=Scripted([5, 3]), max_epochs=2)
    cb = twin.ModelCheckpoint(**words)
    _fit(tmp_path, cb, vals=[5, 3, 4], ckpt_path=str(tmp_path / "d" / "epoch=1-step=4.ckpt"))
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {4: 3.0, 6: 4.0}


def test_round_trip_and_damage(tmp_path):
    """The twin survives pickle, its errors stop training, and its IO refuses damage."""
    cb = twin.ModelCheckpoint(tmp_path / "d", monitor="val_loss")
    assert vars(pickle.loads(pickle.dumps(cb))) == vars(cb)  # noqa: S301 - made one line above
    _fit(tmp_path, cb, vals=[5])
    with open(cb.best_model_path, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamagedCheckpointError):
        _fit(tmp_path, twin.ModelCheckpoint(tmp_path / "e"), ckpt_path=cb.best_model_path)


@pytest.mark.parametrize("name", ["best_model_path", "monitor", "state_key", "format_checkpoint_name", "to_yaml"])
def test_the_twins_are_alike(name):
    """Both packages' classes have the same members, from the same core."""
    assert hasattr(twin.ModelCheckpoint(), name)
    assert hasattr(holdfast.lightning.ModelCheckpoint(), name)
    assert twin.ModelCheckpoint().state_key == holdfast.lightning.ModelCheckpoint().state_key


@pytest.mark.long
def test_shards_of_the_other_package(tmp_path):
    """Under its strategy that shards, two ranks commit directories that are whole, and go on from them."""
    first, second = run_ranks(2, "tests.lightning.jobs_twin:train_and_resume", str(tmp_path), timeout=90)
    assert first == second == [(str(tmp_path / "last.ckpt"), 2), (str(tmp_path / "last.ckpt"), 4)]
    assert holdfast.verify(tmp_path / "last.ckpt").facts.ranks == 2
