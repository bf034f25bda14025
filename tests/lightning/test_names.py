"""File names: the documented examples, odd and hostile keys, the version counter."""

from __future__ import annotations

import math
import os

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, names, step_of

BOTH = pytest.mark.parametrize("cls", [Stock, ModelCheckpoint], ids=["stock", "ours"])

SEED_EXAMPLES = [
    ({"filename": "{epoch}"}, {"epoch": 0}, {}, "epoch=0.ckpt"),
    ({"filename": "{epoch:03d}"}, {"epoch": 5}, {}, "epoch=005.ckpt"),
    ({"filename": "{epoch}-{val_loss:.2f}"}, {"epoch": 2, "val_loss": 0.123456}, {}, "epoch=2-val_loss=0.12.ckpt"),
    (
        {"filename": "{epoch}-{val_loss:.2f}"},
        {"epoch": 2, "val_loss": 0.12},
        {"filename": "{epoch:d}"},
        "epoch=2.ckpt",
    ),
    (
        {"filename": "epoch={epoch}-validation_loss={val_loss:.2f}", "auto_insert_metric_name": False},
        {"epoch": 2, "val_loss": 0.123456},
        {},
        "epoch=2-validation_loss=0.12.ckpt",
    ),
    ({"filename": "{missing:d}"}, {}, {}, "missing=0.ckpt"),
    (
        {"filename": "{epoch}-{val_loss:.2f}-{other_metric:.2f}"},
        {"epoch": 2, "val_loss": 0.02, "other_metric": 0.03},
        {},
        "epoch=2-val_loss=0.02-other_metric=0.03.ckpt",
    ),
    (
        {"filename": "sample-mnist-{epoch:02d}-{val_loss:.2f}"},
        {"epoch": 2, "val_loss": 0.32},
        {},
        "sample-mnist-epoch=02-val_loss=0.32.ckpt",
    ),
    (
        {"filename": "sample-mnist-epoch{epoch:02d}-val_loss{val/loss:.2f}", "auto_insert_metric_name": False},
        {"epoch": 2, "val/loss": 0.32},
        {},
        "sample-mnist-epoch02-val_loss0.32.ckpt",
    ),
    (
        {"filename": "checkpoint_{epoch:02d}-{acc:02d}"},
        {"epoch": 1, "acc": 80},
        {},
        "checkpoint_epoch=01-acc=80.ckpt",
    ),
    ({}, {"epoch": 0, "step": 10}, {}, "epoch=0-step=10.ckpt"),
]


@pytest.mark.parametrize(("words", "metrics", "call", "expected"), SEED_EXAMPLES)
def test_documented_examples(words, metrics, call, expected, tmp_path):
    """Each example of the documentation gives its name exactly, below ``dirpath``."""
    cb = ModelCheckpoint(dirpath=tmp_path, **words)
    path = cb.format_checkpoint_name(metrics, **call)
    assert path == os.path.join(os.path.realpath(tmp_path), expected)


def test_without_a_directory_the_name_stands_alone():
    """Without ``dirpath`` the whole answer is the file name, as in the documentation."""
    assert ModelCheckpoint(filename="{step}").format_checkpoint_name({"step": 0}) == "step=0.ckpt"


@pytest.mark.parametrize(("words", "metrics", "call", "expected"), SEED_EXAMPLES)
def test_documented_examples_as_the_stock_class(words, metrics, call, expected, tmp_path):
    """Lightning's own class gives the same names for these examples, with the metrics it really has: tensors."""
    tensors = {key: torch.tensor(value) for key, value in metrics.items()}
    theirs = Stock(dirpath=tmp_path, **words).format_checkpoint_name(dict(tensors), **call)
    ours = ModelCheckpoint(dirpath=tmp_path, **words).format_checkpoint_name(tensors, **call)
    assert ours == theirs


def test_asking_for_a_name_changes_nothing():
    """A missing key counts as 0 in the name and is not put into the caller's metrics."""
    metrics = {}
    ModelCheckpoint(filename="{missing:d}").format_checkpoint_name(metrics)
    assert metrics == {}


@pytest.mark.parametrize(
    ("template", "metrics", "expected"),
    [
        ("{acc:02d}", {"acc": 80.0}, "acc=80.ckpt"),
        ("{acc:02d}", {"acc": torch.tensor(80.0)}, "acc=80.ckpt"),
        ("{acc:d}", {"acc": 79.5}, "acc=79.5.ckpt"),
        ("{acc:d}", {"acc": math.nan}, "acc=nan.ckpt"),
        ("{val_loss:.2f}", {"val_loss": math.inf}, "val_loss=inf.ckpt"),
        ("{a.b:.1f}", {"a.b": 0.25}, "a.b=0.2.ckpt"),
        ("{a[0]:.1f}", {"a[0]": 0.5}, "a[0]=0.5.ckpt"),
        ("{[x]}", {"[x]": 3}, "[x]=3.ckpt"),
        ("{val_loss:.2f}-{val_loss:.4f}", {"val_loss": 0.12345}, "val_loss=0.12-val_loss=0.1235.ckpt"),
        (
            "{epoch:04d}_{step:010d}_{epoch_test:.3g}",
            {"epoch": 4, "step": 7, "epoch_test": 0.03},
            "epoch=0004_step=0000000007_epoch_test=0.03.ckpt",
        ),
        (
            "{loss}-{val_loss}-{loss_val}",
            {"loss": 1, "val_loss": 2, "loss_val": 3},
            "loss=1-val_loss=2-loss_val=3.ckpt",
        ),
        ("{val/loss:.3f}", {"val/loss": 0.5}, "val/loss=0.500.ckpt"),
        ("{{{epoch}}}", {"epoch": 1}, "{epoch=1}.ckpt"),
        ("été-{epoch}", {"epoch": 1}, "été-epoch=1.ckpt"),
    ],
)
def test_odd_keys_and_values(template, metrics, expected):
    """Dots, slashes, brackets, repeated and nested keys, and floats under integer formats come out right."""
    assert ModelCheckpoint(filename=template).format_checkpoint_name(metrics) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{epoch",
        "epoch}",
        "{}",
        "{epoch!r}",
        "{a:b:c}",
        "{epoch:zz}",
        "../{epoch}",
        "/{epoch}",
        "a/../../{epoch}",
        "a//{epoch}",
        "a\\{epoch}",
        "a\n{epoch}",
        "x" * 300,
        17,
    ],
)
def test_what_cannot_be_a_name_is_refused_when_built(template):
    """A template that would fail, garble or leave the directory later is an error of the constructor."""
    with pytest.raises(MisconfigurationException):
        ModelCheckpoint(filename=template)


class Hostile(Scripted):
    """Logs under the key it is given."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def validation_step(self, batch, batch_idx):
        self.log(self.key, 0.5)


@pytest.mark.parametrize("key", ["../../evil", "/etc/evil", "a/../../../evil", "..", "a/b"])
def test_a_metric_never_leads_outside(key, tmp_path):
    """With a hostile key in the template the callback is refused, or every file stays inside ``dirpath``."""
    folder = tmp_path / "x" / "y" / "d"
    try:
        cb = ModelCheckpoint(dirpath=folder, filename="{" + key + "}", monitor=key)
    except MisconfigurationException:
        return
    fit(tmp_path, cb, model=Hostile(key), max_epochs=1)
    inside = [os.path.relpath(tmp_path / name, folder) for name in names(tmp_path)]
    assert inside
    assert not [name for name in inside if name.split("/")[0] == ".."]


def test_slashes_make_folders_that_are_found_again(tmp_path):
    """A key with a slash saves into a folder below, is pruned there, and is ranked again at resume."""
    words = {"dirpath": tmp_path / "d", "monitor": "val/loss", "filename": "{epoch}-{val/loss:.2f}"}
    first = ModelCheckpoint(**words)
    fit(tmp_path, first, model=Hostile("val/loss"), max_epochs=2)
    assert names(tmp_path / "d") == ["epoch=0-val/loss=0.50.ckpt"]
    second = ModelCheckpoint(**words)
    fit(tmp_path, second, model=Hostile("val/loss"), max_epochs=3, ckpt_path=first.best_model_path)
    assert second.best_model_path == first.best_model_path
    assert names(tmp_path / "d") == ["epoch=0-val/loss=0.50.ckpt"]


@BOTH
def test_version_counter(cls, tmp_path):
    """A constant name gets ``-v1``; the name that retention frees is used again, as in 2.6."""
    cb = cls(dirpath=tmp_path / "d", filename="model", monitor="val_loss", save_top_k=2)
    fit(tmp_path, cb, vals=[5, 4, 3, 2], max_epochs=4)
    assert names(tmp_path / "d") == ["model-v1.ckpt", "model.ckpt"]
    assert step_of(tmp_path / "d" / "model.ckpt") == 6
    assert step_of(tmp_path / "d" / "model-v1.ckpt") == 8


@BOTH
def test_versions_count_over_runs(cls, tmp_path):
    """A new run in the same directory writes ``-v1``, the next ``-v2``, and harms no file of the others."""
    for _ in range(3):
        fit(tmp_path, cls(dirpath=tmp_path / "d", filename="model", save_last=True), max_epochs=1)
    expected = [f"{stem}{version}.ckpt" for stem in ("last", "model") for version in ("-v1", "-v2", "")]
    assert names(tmp_path / "d") == expected


@BOTH
def test_without_the_version_counter_a_name_is_written_over(cls, tmp_path):
    """``enable_version_counter=False`` uses the name as it is: one file, one entry."""
    cb = cls(dirpath=tmp_path / "d", filename="model", monitor="val_loss", save_top_k=2, enable_version_counter=False)
    fit(tmp_path, cb, vals=[5, 4, 3], max_epochs=3)
    assert names(tmp_path / "d") == ["model.ckpt"]
    assert step_of(tmp_path / "d" / "model.ckpt") == 6
    assert list(cb.best_k_models) == [str(tmp_path / "d" / "model.ckpt")]


def test_joints_of_a_name_may_be_changed(tmp_path):
    """Join and equals characters, extension and first version are read from the instance."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1)
    cb.CHECKPOINT_JOIN_CHAR, cb.CHECKPOINT_EQUALS_CHAR, cb.FILE_EXTENSION = "_", ":", ".pt"
    cb.STARTING_VERSION = 7
    assert os.path.basename(cb.format_checkpoint_name({"epoch": 3, "step": 2}, ver=4)) == "epoch:3_step:2_v4.pt"
    fit(tmp_path, cb, max_epochs=1)
    again = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1)
    again.CHECKPOINT_JOIN_CHAR, again.CHECKPOINT_EQUALS_CHAR, again.FILE_EXTENSION = "_", ":", ".pt"
    again.STARTING_VERSION = 7
    fit(tmp_path, again, max_epochs=1)
    assert names(tmp_path / "d") == ["epoch:0_step:2.pt", "epoch:0_step:2_v7.pt"]


def test_prefix_and_version():
    """``prefix`` goes in front and ``ver`` behind, as in 2.6."""
    cb = ModelCheckpoint()
    assert cb.format_checkpoint_name({"epoch": 3, "step": 2}, prefix="test", ver=0) == "test-epoch=3-step=2-v0.ckpt"


class LogsItsOwnStep(Scripted):
    """Logs metrics called ``epoch`` and ``step``."""

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.log("epoch", 7.0)
        self.log("step", 42.0)


@BOTH
def test_a_logged_epoch_and_step_win(cls, tmp_path):
    """An ``epoch`` or ``step`` that the user logged stands in the name, as in 2.6."""
    fit(tmp_path, cls(dirpath=tmp_path / "d"), model=LogsItsOwnStep(), max_epochs=1)
    assert names(tmp_path / "d") == ["epoch=7-step=42.ckpt"]


def test_the_class_is_found_where_the_stock_one_is(tmp_path):
    """The Trainer takes ours for its checkpoint callback and adds none of its own."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d")
    made = fit(tmp_path, cb, max_epochs=1, enable_checkpointing=True)
    assert isinstance(cb, Stock)
    assert isinstance(cb, pl.callbacks.Checkpoint)
    assert made.checkpoint_callbacks == [cb]
