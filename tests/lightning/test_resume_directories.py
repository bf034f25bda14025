"""Callbacks with directories of their own, resumed together from a file of one of them."""

from __future__ import annotations

import os

import pytest
from lightning.pytorch.plugins.io import TorchCheckpointIO

from tests.support.lightning_cases import ModelCheckpoint, Stock, fit, names, quietly, step_of

BEGUN_BY = {"stock": Stock, "ours": ModelCheckpoint, "ours with torch's files": ModelCheckpoint}


def _pair(cls, root, second_last):
    return [
        cls(root / "low", monitor="val_loss", save_last=True),
        cls(root / "high", monitor="val_loss", mode="max", save_top_k=2, save_last=second_last),
    ]


def _options(begun_by):
    return {"plugins": [TorchCheckpointIO()]} if begun_by == "ours with torch's files" else {}


def _scores(cb):
    return {step_of(path): float(score) for path, score in cb.best_k_models.items()}


def _check(second, root, messages, second_last):
    low, high = second
    assert not [text for text in messages if "dirpath has changed" in text]
    assert _scores(low) == {6: 3.0}
    assert _scores(high) == {4: 5.0, 8: 6.0}
    assert set(names(root / "low")) == {"last.ckpt", "epoch=2-step=6.ckpt"}
    lasts = ["last.ckpt"] if second_last else []
    assert names(root / "high") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", *lasts]
    assert low.last_model_path == str(root / "low" / "last.ckpt")
    assert step_of(low.last_model_path) == 8
    assert high.last_model_path == (str(root / "high" / "last.ckpt") if second_last else "")


@pytest.mark.parametrize("source", ["last.ckpt", "epoch=2-step=6.ckpt"])
@pytest.mark.parametrize("second_last", [None, True], ids=["one last", "two lasts"])
@pytest.mark.parametrize("begun_by", BEGUN_BY)
def test_each_keeps_its_ranking(tmp_path, begun_by, second_last, source):
    """Resumed from a file of the first, the second has its ranking again, goes on pruning, and warns of nothing."""
    options = _options(begun_by)
    fit(tmp_path, *_pair(BEGUN_BY[begun_by], tmp_path, second_last), vals=[4, 5, 3], max_epochs=3, **options)
    second = _pair(ModelCheckpoint, tmp_path, second_last)
    path = tmp_path / "low" / source
    _, messages = quietly(fit, tmp_path, *second, vals=[6], max_epochs=4, ckpt_path=path, **_options(begun_by))
    _check(second, tmp_path, messages, second_last)


@pytest.mark.parametrize("begun_by", BEGUN_BY)
def test_a_file_that_both_have_by_name(tmp_path, begun_by):
    """Both rank a file of the name that is resumed from: it is still the first one's, and the second keeps its own."""
    first = _pair(BEGUN_BY[begun_by], tmp_path, second_last=None)
    # Lightning calls the callbacks in order: the second one's save comes first, and the first one's file knows it.
    fit(tmp_path, *first[::-1], vals=[4], max_epochs=1, **_options(begun_by))
    second = _pair(ModelCheckpoint, tmp_path, second_last=None)
    path = tmp_path / "low" / "epoch=0-step=2.ckpt"
    assert os.path.exists(tmp_path / "high" / path.name)
    options = {**_options(begun_by), "ckpt_path": path, "max_epochs": 4}
    _, messages = quietly(fit, tmp_path, *second[::-1], vals=[5, 3, 6], **options)
    assert not [text for text in messages if "dirpath has changed" in text]
    low, high = second
    assert _scores(low) == {6: 3.0}
    assert _scores(high) == {4: 5.0, 8: 6.0}
    assert {path.name, "epoch=2-step=6.ckpt"} <= set(names(tmp_path / "low"))
    assert names(tmp_path / "high") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt"]


@pytest.mark.parametrize("begun_by", ["ours", "ours with torch's files"])
def test_directories_that_were_moved_together(tmp_path, begun_by):
    """Both directories moved: resumed from the first one's ``last``, the second is found in its new place."""
    old, new = tmp_path / "old", tmp_path / "new"
    fit(old, *_pair(BEGUN_BY[begun_by], old, second_last=True), vals=[4, 5, 3], max_epochs=3, **_options(begun_by))
    os.rename(old, new)
    second = _pair(ModelCheckpoint, new, second_last=True)
    path = new / "low" / "last.ckpt"
    _, messages = quietly(fit, new, *second, vals=[6], max_epochs=4, ckpt_path=path, **_options(begun_by))
    _check(second, new, messages, second_last=True)
    assert not old.exists()


def test_beside_a_stock_callback(tmp_path):
    """Resumed from the ``last`` of Lightning's own callback in another directory, ours has its ranking again."""

    def pair():
        return [Stock(tmp_path / "low", monitor="val_loss", save_last=True), _pair(ModelCheckpoint, tmp_path, True)[1]]

    fit(tmp_path, *pair(), vals=[4, 5, 3], max_epochs=3)
    second = pair()
    path = tmp_path / "low" / "last.ckpt"
    _, messages = quietly(fit, tmp_path, *second, vals=[6], max_epochs=4, ckpt_path=path)
    assert not [text for text in messages if "dirpath has changed" in text]
    assert _scores(second[1]) == {4: 5.0, 8: 6.0}
    assert names(tmp_path / "high") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
