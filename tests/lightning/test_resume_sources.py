"""The file resumed from may be named through a link or a URL: it is the same file, and as safe."""

from __future__ import annotations

import os

import fsspec
import pytest

from holdfast.storage import open_store, same_place
from tests.support.lightning_cases import ModelCheckpoint, Stock, fit, names, quietly, step_of, steps

WORDS = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}


def _train(cls, folder, vals, epochs, ckpt_path=None, **words):
    cb = cls(folder, **{**WORDS, **words})
    fit("root", cb, vals=vals, max_epochs=epochs, ckpt_path=ckpt_path)
    return cb


def _scores(cb):
    return {step_of(path): float(score) for path, score in cb.best_k_models.items()}


@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_link_beside_the_file(tmp_path, absolute):
    """Resumed by a symbolic link in ``dirpath``: the file behind it is never removed, and the ranking goes on."""
    folder = tmp_path / "d"
    words = {"save_top_k": 1, "save_last": None}
    source = _train(ModelCheckpoint, folder, [5], 1, **words).best_model_path
    os.symlink(source if absolute else os.path.basename(source), folder / "chosen.ckpt")
    cb = _train(ModelCheckpoint, folder, [4, 3], 3, folder / "chosen.ckpt", **words)
    assert names(folder) == ["chosen.ckpt", "epoch=0-step=2.ckpt", "epoch=2-step=6.ckpt"]
    assert step_of(source) == step_of(folder / "chosen.ckpt") == 2
    assert _scores(cb) == {6: 3.0}


@pytest.mark.parametrize("source", ["last.ckpt", "last"])
def test_a_linked_last_of_the_stock_class(tmp_path, source):
    """A directory in which Lightning's ``save_last="link"`` left a symbolic link resumes with what is behind it."""
    folder = tmp_path / "d"
    _train(Stock, folder, [5, 4], 2, save_top_k=1, save_last="link")
    assert os.path.islink(folder / "last.ckpt")
    path = source if source == "last" else folder / source
    cb = _train(ModelCheckpoint, folder, [3, 2], 4, path, save_top_k=1, save_last="link")
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert steps(folder) == [4, 8, 8]
    assert _scores(cb) == {8: 2.0}
    assert cb.last_model_path == str(folder / "last.ckpt")
    assert step_of(cb.last_model_path) == 8


def test_a_link_from_outside(tmp_path):
    """Resumed by a symbolic link that lies elsewhere: ranking and ``last.ckpt`` go on, and nothing is new."""
    folder = tmp_path / "d"
    _train(ModelCheckpoint, folder, [5, 3, 4], 3)
    os.symlink(folder / "last.ckpt", tmp_path / "latest.ckpt")
    cb, messages = quietly(_train, ModelCheckpoint, folder, [2], 4, tmp_path / "latest.ckpt")
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert cb.last_model_path == str(folder / "last.ckpt")
    assert step_of(cb.last_model_path) == 8
    assert not [text for text in messages if "dirpath has changed" in text]


def test_a_link_of_the_folder(tmp_path):
    """``dirpath`` and ``ckpt_path`` may go through different links to one folder."""
    folder = tmp_path / "d"
    _train(ModelCheckpoint, folder, [5, 3, 4], 3)
    os.symlink(folder, tmp_path / "one")
    os.symlink(folder, tmp_path / "two")
    cb = _train(ModelCheckpoint, tmp_path / "one", [2], 4, tmp_path / "two" / "epoch=2-step=6.ckpt")
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]


@pytest.mark.parametrize("scheme", ["file://", "local://"])
@pytest.mark.parametrize("written", ["both", "dirpath", "ckpt_path"])
def test_urls_of_this_machine(tmp_path, scheme, written):
    """``file://`` and ``local://``, in ``dirpath`` or ``ckpt_path``: ranking, last and protection survive a resume."""
    folder = str(tmp_path / "d")
    place = scheme + folder if written != "ckpt_path" else folder
    source = (scheme + folder if written != "dirpath" else folder) + "/epoch=2-step=6.ckpt"
    _train(ModelCheckpoint, place, [5, 3, 4], 3)
    cb, messages = quietly(_train, ModelCheckpoint, place, [2, 1], 5, source)
    assert cb.dirpath == folder
    assert _scores(cb) == {8: 2.0, 10: 1.0}
    assert names(folder) == ["epoch=2-step=6.ckpt", "epoch=3-step=8.ckpt", "epoch=4-step=10.ckpt", "last.ckpt"]
    assert cb.last_model_path == os.path.join(folder, "last.ckpt")
    assert step_of(cb.last_model_path) == 10
    assert not [text for text in messages if "dirpath has changed" in text]


@pytest.mark.parametrize(("one", "other"), [("memory://", "memory:///"), ("memory:///", "memory://")])
def test_slashes_of_a_url(tmp_path, one, other):
    """``memory://x`` and ``memory:///x`` are one place: the run goes on, and its source is protected there."""
    name = tmp_path.name
    _train(ModelCheckpoint, one + name, [5, 3, 4], 3)
    try:
        source = f"{other}{name}/epoch=2-step=6.ckpt"
        cb, messages = quietly(_train, ModelCheckpoint, one + name, [2, 1], 5, source)
        kept = {blob.name for blob in open_store(one + name).blobs()}
    finally:
        fsspec.filesystem("memory").store.clear()
    assert kept == {"epoch=2-step=6.ckpt", "epoch=3-step=8.ckpt", "epoch=4-step=10.ckpt", "last.ckpt"}
    assert sorted(float(score) for score in cb.best_k_models.values()) == [1.0, 2.0]
    assert cb.last_model_path.endswith("/last.ckpt")
    assert not [text for text in messages if "dirpath has changed" in text]


def test_which_places_are_the_same(tmp_path):
    """Paths, links and URLs of one place are the same, and those of two are not."""
    os.symlink(tmp_path, tmp_path / "link")
    for other in (f"file://{tmp_path}", f"local://{tmp_path}/", f"{tmp_path}/", str(tmp_path / "link")):
        assert same_place(str(tmp_path), other), other
        assert not same_place(str(tmp_path / "below"), other), other
    assert same_place("memory://x", "memory:///x/")
    assert not same_place("memory://x", "memory://y")
    assert not same_place("memory://x", "x")
