"""Where checkpoints go: the order of resolution, and remote directories."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, loader, names, step_of, trainer

BOTH = pytest.mark.parametrize("cls", [Stock, ModelCheckpoint], ids=["stock", "ours"])


@BOTH
@pytest.mark.parametrize(
    ("make_logger", "expected"),
    [
        (lambda _: False, "checkpoints"),
        (CSVLogger, "lightning_logs/version_0/checkpoints"),
        (lambda root: CSVLogger(root, name="n", version="v"), "n/v/checkpoints"),
        (lambda root: CSVLogger(root, name="n", version=3), "n/version_3/checkpoints"),
        (lambda root: CSVLogger(root / "logs", name="n", version=3), "logs/n/version_3/checkpoints"),
        (lambda root: [CSVLogger(root, name="a"), CSVLogger(root, name="b")], "a/version_0/checkpoints"),
    ],
)
def test_without_dirpath(cls, make_logger, expected, tmp_path):
    """The first logger's directory, name and version decide, or else the Trainer's root, as in 2.6."""
    cb = cls()
    fit(tmp_path, cb, logger=make_logger(tmp_path), max_epochs=1)
    assert cb.dirpath == str(tmp_path / expected)
    assert names(tmp_path / expected) == ["epoch=0-step=2.ckpt"]


def test_own_dirpath_comes_first(tmp_path):
    """A ``dirpath`` of one's own wins over the logger's and the Trainer's."""
    cb = ModelCheckpoint(tmp_path / "own")
    fit(tmp_path / "root", cb, logger=CSVLogger(tmp_path / "logs"), max_epochs=1)
    assert names(tmp_path / "own") == ["epoch=0-step=2.ckpt"]
    assert not (tmp_path / "root" / "checkpoints").exists()


@pytest.mark.parametrize("logged", [True, False])
def test_weights_save_path_where_the_trainer_has_it(logged, tmp_path):
    """``weights_save_path`` comes after the logger's directory and before ``default_root_dir``."""
    logger = CSVLogger(tmp_path / "logs", name="n", version="v") if logged else False
    made = trainer(tmp_path / "root", cb := ModelCheckpoint(), logger=logger, max_epochs=1)
    made.weights_save_path = str(tmp_path / "weights")
    made.fit(Scripted(), loader(), loader())
    expected = tmp_path / ("logs/n/v/checkpoints" if logged else "weights/checkpoints")
    assert cb.dirpath == str(expected)
    assert names(expected) == ["epoch=0-step=2.ckpt"]


@BOTH
def test_paths_are_made_absolute(cls, tmp_path, monkeypatch):
    """Relative paths, ``~`` and symbolic links are resolved when the callback is built."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert cls("my/path/").dirpath == str(tmp_path / "my" / "path")
    assert cls(Path("~") / "runs").dirpath == str(tmp_path / "home" / "runs")
    assert cls(tmp_path / "link" / "d").dirpath == str(tmp_path / "real" / "d")
    assert cls("s3://bucket/run").dirpath == "s3://bucket/run"
    assert cls().dirpath is None


def test_a_link_to_the_directory_changes_nothing(tmp_path):
    """Resuming through a symbolic link of the directory ranks and prunes as through its real name."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    words = {"monitor": "val_loss", "save_top_k": 1, "save_last": True}
    fit(tmp_path, ModelCheckpoint(tmp_path / "real", **words), vals=[5], max_epochs=1)
    cb = ModelCheckpoint(tmp_path / "link", **words)
    fit(tmp_path, cb, vals=[4], max_epochs=2, ckpt_path=str(tmp_path / "link" / "last.ckpt"))
    assert names(tmp_path / "real") == ["epoch=1-step=4.ckpt", "last.ckpt"]


def _remote(tmp_path):
    return f"memory://{tmp_path.name}/run"


def _remote_names(url):
    fs, base = fsspec.core.url_to_fs(url)
    return sorted(path.rsplit("/", 1)[-1] for path in fs.find(base)) if fs.exists(base) else []


def _remote_step(url):
    with fsspec.open(url) as file:
        return torch.load(file, weights_only=True)["global_step"]


def test_remote_writing_ranking_and_removal(tmp_path):
    """On a URL checkpoints are written, ranked, listed and removed as on a disk, with no other blob beside."""
    url = _remote(tmp_path)
    cb = ModelCheckpoint(url, monitor="val_loss", save_top_k=2, save_last=True)
    fit(tmp_path, cb, vals=[5, 3, 4], max_epochs=3)
    assert cb.dirpath == url
    assert _remote_names(url) == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last.ckpt"]
    assert cb.best_model_path == f"{url}/epoch=1-step=4.ckpt"
    assert cb.last_model_path == f"{url}/last.ckpt"
    assert _remote_step(cb.last_model_path) == 6
    assert names(tmp_path) == []


@pytest.mark.parametrize("source", ["last.ckpt", "epoch=2-step=6.ckpt", "last"])
def test_remote_resume(source, tmp_path):
    """A run resumes from a URL, goes on ranking, and never removes the blob it came from."""
    url = _remote(tmp_path)
    words = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
    fit(tmp_path, ModelCheckpoint(url, **words), vals=[5, 3, 4], max_epochs=3)
    cb = ModelCheckpoint(url, **words)
    made = fit(tmp_path, cb, vals=[2], max_epochs=4, ckpt_path=source if source == "last" else f"{url}/{source}")
    assert made.global_step == 8
    protected = [source] if "step=6" in source else []
    assert _remote_names(url) == sorted(["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt", *protected])
    assert {_remote_step(path): float(score) for path, score in cb.best_k_models.items()} == {4: 3.0, 8: 2.0}


def test_remote_version_counter_and_yaml(tmp_path):
    """The version counter sees remote blobs, and ``to_yaml`` writes beside them."""
    url = _remote(tmp_path)
    for _ in range(2):
        cb = ModelCheckpoint(url, "model", "val_loss")
        fit(tmp_path, cb, vals=[5], max_epochs=1)
    assert _remote_names(url) == ["model-v1.ckpt", "model.ckpt"]
    cb.to_yaml()
    with fsspec.open(f"{url}/best_k_models.yaml") as file:
        assert yaml.safe_load(file) == {f"{url}/model-v1.ckpt": 5.0}


def test_remote_default_root(tmp_path):
    """A ``default_root_dir`` that is a URL holds the checkpoints below it."""
    cb = ModelCheckpoint()
    fit(_remote(tmp_path), cb, max_epochs=1)
    assert cb.dirpath == f"{_remote(tmp_path)}/checkpoints"
    assert _remote_names(cb.dirpath) == ["epoch=0-step=2.ckpt"]


def test_file_urls_are_local(tmp_path):
    """``file://`` names a directory of this machine: links and rankings work there."""
    cb = ModelCheckpoint(f"file://{tmp_path}/d", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, vals=[5, 4], max_epochs=2)
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "last.ckpt"]
    assert os.path.samefile(tmp_path / "d" / "last.ckpt", tmp_path / "d" / "epoch=1-step=4.ckpt")


def test_an_unknown_scheme_is_an_error(tmp_path):
    """A URL that no filesystem is known for is named before the first epoch."""
    with pytest.raises(ValueError, match="nosuch://bucket"):
        fit(tmp_path, ModelCheckpoint("nosuch://bucket/d"), max_epochs=1)


def test_with_the_tensorboard_logger(tmp_path):
    """The TensorBoard logger's name and version shape the directory too."""
    pytest.importorskip("tensorboard")
    cb = ModelCheckpoint()
    fit(tmp_path, cb, logger=TensorBoardLogger(tmp_path, name="tb", version=3), max_epochs=1)
    assert cb.dirpath == str(tmp_path / "tb" / "version_3" / "checkpoints")
    assert step_of(cb.best_model_path) == 2
