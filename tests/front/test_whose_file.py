"""Retention removes what the run itself has saved, and nothing that merely bears its name."""

from __future__ import annotations

import os

import pytest
import torch

from holdfast import Checkpointer, newest
from tests.support.lightning_models import Scripted, loader, trainer

lightning = pytest.importorskip("holdfast.lightning")
stock = pytest.importorskip("lightning.pytorch.callbacks")

ModelCheckpoint = lightning.ModelCheckpoint


def fit(tmp_path, callbacks, epochs, start=None):
    made = trainer(tmp_path, *callbacks, max_epochs=epochs)
    made.fit(Scripted(), loader(), loader(), ckpt_path=start)


def names(folder):
    return sorted(os.listdir(folder))


def test_files_of_another_run_are_not_adopted_by_name(tmp_path):
    """A state from elsewhere, resumed into a folder of Lightning's own files of the same names, leaves them alone."""
    fit(tmp_path, [stock.ModelCheckpoint(tmp_path / "d", "{epoch}", save_top_k=-1)], 4)
    fit(tmp_path, [ModelCheckpoint(tmp_path / "e", "{epoch}", save_top_k=-1)], 2)
    os.rename(tmp_path / "e" / "epoch=1.ckpt", tmp_path / "renamed.ckpt")
    before = set(names(tmp_path / "d"))
    fit(tmp_path, [ModelCheckpoint(tmp_path / "d", "{epoch}", save_top_k=1)], 6, str(tmp_path / "renamed.ckpt"))
    assert before <= set(names(tmp_path / "d"))


def test_a_file_written_over_by_its_user_is_left(tmp_path):
    """What the user saved by hand under the name of an old checkpoint survives the resume and all later evictions."""
    words = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
    fit(tmp_path, [ModelCheckpoint(tmp_path / "d", "{epoch}", **words)], 2)
    mine = tmp_path / "d" / "epoch=0.ckpt"
    torch.save({"mine": 1}, mine)
    fit(tmp_path, [ModelCheckpoint(tmp_path / "d", "{epoch}", **words)], 5, "last")
    assert torch.load(mine) == {"mine": 1}


def test_a_file_replaced_while_training_is_left(tmp_path):
    """A checkpoint that was moved away and replaced during the run is not removed in its stead, and that is said."""
    model = torch.nn.Linear(1, 1)
    with Checkpointer(tmp_path / "d", model=model, filename="{epoch}") as ckpt:
        ckpt.step()
        ckpt.end_epoch()
        os.rename(tmp_path / "d" / "epoch=0.ckpt", tmp_path / "d" / "good.ckpt")
        (tmp_path / "d" / "epoch=0.ckpt").write_bytes(b"precious")
        ckpt.step()
        with pytest.warns(UserWarning, match="no longer the file"):
            ckpt.end_epoch()
    assert names(tmp_path / "d") == ["epoch=0.ckpt", "epoch=1.ckpt", "good.ckpt"]


def test_another_filename_is_another_callback(tmp_path):
    """A callback of another filename takes over neither the archive it replaces, nor one that comes back beside it."""
    archive, single = {"filename": "arch-{epoch}", "save_top_k": -1}, {"filename": "x-{epoch}", "save_top_k": 1}
    folder = tmp_path / "d"
    fit(tmp_path, [ModelCheckpoint(folder, **archive)], 2)
    fit(tmp_path, [ModelCheckpoint(folder, **single)], 3, newest(folder))
    fit(tmp_path, [ModelCheckpoint(folder, **archive), ModelCheckpoint(folder, **single)], 5, newest(folder))
    assert {"arch-epoch=0.ckpt", "arch-epoch=1.ckpt", "arch-epoch=3.ckpt", "arch-epoch=4.ckpt"} <= set(names(folder))


def test_keeping_none_drops_none(tmp_path):
    """save_top_k=0 on a folder of kept checkpoints saves none itself and removes none of those there."""
    folder = tmp_path / "d"
    fit(tmp_path, [ModelCheckpoint(folder, "{epoch}", save_top_k=-1)], 3)
    before = set(names(folder))
    fit(tmp_path, [ModelCheckpoint(folder, "{epoch}", save_top_k=0, save_last=True)], 5, newest(folder))
    assert set(names(folder)) == before | {"last.ckpt"}


def test_two_trainings_from_one_file_are_two_runs(tmp_path):
    """Two trainings that begin from the same file, which lies elsewhere, do not prune each other's files."""
    fit(tmp_path, [ModelCheckpoint(tmp_path / "start", "{epoch}")], 1)
    start = str(tmp_path / "init.ckpt")
    os.rename(tmp_path / "start" / "epoch=0.ckpt", start)
    for epochs in (3, 4):
        fit(tmp_path, [ModelCheckpoint(tmp_path / "d", "{epoch}")], epochs, start)
    assert names(tmp_path / "d") == ["epoch=2.ckpt", "epoch=3.ckpt"]


def test_the_newest_is_found_in_subfolders(tmp_path):
    """Names with folders in them are found; a folder of files that say nothing of themselves gives a warning."""
    fit(tmp_path, [ModelCheckpoint(tmp_path / "d", "e{epoch}/m", auto_insert_metric_name=False, save_top_k=-1)], 2)
    assert newest(tmp_path / "d") == str(tmp_path / "d" / "e1" / "m.ckpt")
    fit(tmp_path, [stock.ModelCheckpoint(tmp_path / "s")], 1)
    with pytest.warns(UserWarning, match="no manifest"):
        assert newest(tmp_path / "s") is None


@pytest.mark.filterwarnings("error")
def test_a_loss_that_has_a_graph_is_a_metric(tmp_path):
    """A loss is taken as it comes out of the model, without a warning from torch."""
    model = torch.nn.Linear(1, 1)
    with Checkpointer(tmp_path / "d", model=model, monitor="loss") as ckpt:
        ckpt.step()
        ckpt.end_epoch({"loss": model(torch.ones(1, 1)).sum()})
    assert ckpt.best_model_score is not None
