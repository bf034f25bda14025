"""``ModelCheckpoint`` with a second tier: what it carries there, and where a fit goes on from."""

from __future__ import annotations

import os
import secrets
import shutil

import fsspec
import pytest
import torch

import holdfast
from holdfast.storage import open_store
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, names, quietly, step_of


@pytest.fixture
def url():
    yield f"memory://{secrets.token_hex(4)}"
    fsspec.filesystem("memory").store.clear()


def _callback(folder, url, **words):
    return ModelCheckpoint(folder, monitor="val_loss", save_top_k=2, save_last=True, mirror=url, **words)


def _model(*scores):
    torch.manual_seed(3)
    return Scripted(scores)


def _weights(made):
    return [value.tolist() for value in made.lightning_module.state_dict().values()]


def test_a_fit_goes_on_from_the_mirror_alone(tmp_path, url):
    """With an empty directory ``ckpt_path="last"`` goes on from the mirror, to the bit, with its ranking as it was."""
    whole = fit(tmp_path, _callback(tmp_path / "whole", None), model=_model(5.0, 2.0, 4.0, 3.0), max_epochs=4)
    first = _callback(tmp_path / "d", url)
    fit(tmp_path, first, model=_model(5.0, 2.0), max_epochs=2)
    assert [blob.name for blob in open_store(url).blobs()] == [
        name for name in names(tmp_path / "d") if not name.startswith(".holdfast-mirror/")
    ]
    shutil.rmtree(tmp_path / "d")
    second = _callback(tmp_path / "d", url)
    made = fit(tmp_path, second, model=_model(4.0, 3.0), max_epochs=4, ckpt_path="last")
    assert _weights(made) == _weights(whole)
    assert {path.rpartition("/")[2]: float(score) for path, score in second.best_k_models.items()} == {
        path.rpartition("/")[2]: float(score) for path, score in whole.checkpoint_callback.best_k_models.items()
    }
    assert float(second.best_model_score) == float(whole.checkpoint_callback.best_model_score)
    assert all(holdfast.load(path)["global_step"] for path in second.best_k_models)
    there = {blob.name for blob in open_store(url).blobs()}
    assert {path.rpartition("/")[2] for path in second.best_k_models} | {"last.ckpt"} == there


def test_no_answer_is_no_fresh_start(tmp_path, url, monkeypatch):
    """With nothing here and a mirror that cannot be asked, ``ckpt_path="last"`` does not begin at step 0."""
    from holdfast.storage.remote.store import RemoteStore

    def fail(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(RemoteStore, "blobs", fail)
    with pytest.warns(UserWarning, match="could not be asked"), pytest.raises(holdfast.LoadError, match="no route"):
        fit(tmp_path, _callback(tmp_path / "d", url), max_epochs=1, ckpt_path="last")


def test_a_word_that_cannot_be_meant(tmp_path):
    """It is Lightning's error for wrong arguments, when the callback is built."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    with pytest.raises(MisconfigurationException, match="mirror_bandwidth"):
        _callback(tmp_path, "memory://a", mirror_bandwidth=0)
    assert torch.is_tensor(_callback(tmp_path, "memory://a").kth_value)


def test_two_branches_that_did_not_know_of_each_other(tmp_path, url):
    """Of a branch here and one there the further is taken, and the other is named, with what goes on from it."""
    folder = tmp_path / "d"

    def callback(mirror):
        return ModelCheckpoint(folder, save_top_k=-1, save_last=True, mirror=mirror)

    fit(tmp_path, callback(url), model=_model(1.0), max_epochs=3)
    oldest = next(item.path for item in holdfast.catalog(folder) if item.step == 2)
    for item in holdfast.catalog(folder):
        if item.path != oldest:
            os.unlink(item.path)  # an older copy of the directory, on a machine that does not reach the mirror
    fit(tmp_path, callback(None), model=_model(1.0), max_epochs=2, ckpt_path=oldest)
    told = quietly(lambda: fit(tmp_path, callback(url), model=_model(1.0), max_epochs=3, ckpt_path="last"))[1]
    named = [text for text in told if "a branch that had gone back saved later" in text]
    assert len(named) == 1
    assert f"`ckpt_path='{folder}/" in named[0]
    assert "(step 4)" in named[0]
    assert step_of(folder / "last.ckpt") == 6
