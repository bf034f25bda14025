"""Names with slashes make folders; what is removed leaves none of them behind."""

from __future__ import annotations

import os

import pytest

from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, names


class Slashed(Scripted):
    """Logs its metric as ``val/loss``."""

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", float(self.vals[min(self.validations, len(self.vals) - 1)]))


def _folders(root):
    return sorted(os.path.relpath(os.path.join(where, name), root) for where, some, _ in os.walk(root) for name in some)


@pytest.mark.parametrize("other", [False, True], ids=["alone", "beside another file"])
def test_no_empty_folder_stays(tmp_path, other):
    """A checkpoint that is dropped takes the folders of its name along, unless something else lies in them."""
    folder = tmp_path / "d"
    if other:
        (folder / "epoch=0-val").mkdir(parents=True)
        (folder / "epoch=0-val" / "notes.txt").write_text("mine")
    cb = ModelCheckpoint(folder, "{epoch}-{val/loss:.2f}", "val/loss")
    fit(tmp_path, cb, model=Slashed([3, 2, 1]), max_epochs=3)
    mine = ["epoch=0-val/notes.txt"] if other else []
    assert names(folder) == [*mine, "epoch=2-val/loss=1.00.ckpt"]
    assert _folders(folder) == [*(["epoch=0-val"] if other else []), "epoch=2-val"]


def test_the_directory_itself_stays(tmp_path):
    """When nothing is kept any more, the folders of the names go, and ``dirpath`` stays."""
    folder = tmp_path / "d"
    cb = ModelCheckpoint(folder, "a/b/{epoch}", "val/loss")
    made = fit(tmp_path, cb, model=Slashed([3]), max_epochs=1)
    assert _folders(folder) == ["a", "a/b"]
    made.strategy.remove_checkpoint(cb.best_model_path)
    assert names(folder) == []
    assert folder.is_dir()
