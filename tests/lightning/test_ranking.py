"""Which checkpoints are kept: NaN, ties, both modes; and metrics that are missing or stale."""

from __future__ import annotations

import math
import os

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, names, quietly, step_of, steps
from tests.support.lightning_parts import Probe

BOTH = pytest.mark.parametrize("cls", [Stock, ModelCheckpoint], ids=["stock", "ours"])
NAN, INF = math.nan, math.inf


@BOTH
@pytest.mark.parametrize(
    ("vals", "words", "kept"),
    [
        ([5, 4, 3], {}, [6]),
        ([3, 4, 5], {}, [2]),
        ([3, 4, 5], {"mode": "max"}, [6]),
        ([5, 3, 4, 2], {"save_top_k": 2}, [4, 8]),
        ([5, 5, 5], {}, [2]),
        ([5, 5, 5], {"save_top_k": 2}, [2, 4]),
        ([5, 5, 4, 4], {"save_top_k": 2, "mode": "max"}, [2, 4]),
        ([5, NAN, NAN, 4], {"save_top_k": 2}, [2, 8]),
        ([NAN, 5], {}, [4]),
        ([NAN, 5], {"mode": "max"}, [4]),
        ([5, NAN], {"mode": "max"}, [2]),
        ([-INF, 5], {}, [2]),
        ([5, -INF], {}, [4]),
    ],
)
def test_what_is_kept(cls, vals, words, kept, tmp_path):
    """The best are kept and the rest goes; NaN never beats a number and ties keep the older, as in 2.6."""
    cb = cls(dirpath=tmp_path / "d", monitor="val_loss", **words)
    fit(tmp_path, cb, vals=vals, max_epochs=len(vals))
    assert steps(tmp_path / "d") == kept
    assert sorted(step_of(path) for path in cb.best_k_models) == kept


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("save_top_k", [1, 2, -1])
def test_nan_is_never_the_best(mode, save_top_k, tmp_path):
    """A model whose metric is NaN may be kept for want of others, but it is not called best."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", mode=mode, save_top_k=save_top_k)
    seen = []
    probe = Probe(on_train_epoch_start=lambda _: seen.append(cb.best_model_path))
    fit(tmp_path, cb, probe, vals=[NAN, 5], max_epochs=2)
    assert seen == ["", ""]
    assert step_of(cb.best_model_path) == 4
    assert float(cb.best_model_score) == 5.0


def test_nan_stays_nan_in_the_scores(tmp_path):
    """A NaN score is stored as what it is, not as an infinity that a number could equal."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=-1)
    fit(tmp_path, cb, vals=[NAN, INF, 5], max_epochs=3)
    scores = {step_of(path): float(score) for path, score in cb.best_k_models.items()}
    assert math.isnan(scores[2])
    assert (scores[4], scores[6]) == (INF, 5.0)
    assert step_of(cb.kth_best_model_path) == 2


@BOTH
def test_attributes_of_a_full_ranking(cls, tmp_path):
    """Best, worst, scores and current score have the values of Lightning 2.6."""
    cb = cls(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=2)
    fit(tmp_path, cb, vals=[5, 3, 4, 9], max_epochs=4)
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {4: 3.0, 6: 4.0}
    assert (step_of(cb.best_model_path), float(cb.best_model_score)) == (4, 3.0)
    assert (step_of(cb.kth_best_model_path), float(cb.kth_value)) == (6, 4.0)
    assert float(cb.current_score) == 4.0
    assert isinstance(cb.best_model_score, torch.Tensor)


@BOTH
def test_attributes_before_the_ranking_is_full(cls, tmp_path):
    """With fewer than k files there is no k-th one, and its value is infinitely bad."""
    cb = cls(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=3, mode="max")
    fit(tmp_path, cb, vals=[5, 3], max_epochs=2)
    assert cb.kth_best_model_path == ""
    assert float(cb.kth_value) == -INF


def test_paths_always_name_committed_files(tmp_path):
    """At no hook of training does any attribute name a file that is not there."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=2, save_last=True)
    missing = []

    def look(_):
        paths = [cb.best_model_path, cb.last_model_path, cb.kth_best_model_path, *cb.best_k_models]
        missing.extend(path for path in paths if path and not os.path.exists(path))

    hooks = ("on_train_batch_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end", "on_train_end")
    fit(tmp_path, cb, Probe(**dict.fromkeys(hooks, look)), vals=[5, 3, 4, 2, 9], max_epochs=5)
    assert missing == []


def test_a_missing_monitor_after_validation_is_an_error(tmp_path):
    """An epoch trigger whose metric is missing names the key and lists those there were."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_acc")
    with pytest.raises(MisconfigurationException, match=r"monitor='val_acc'.*'train_loss', 'val_loss'"):
        fit(tmp_path, cb)
    assert names(tmp_path / "d") == []


def test_a_missing_monitor_without_validation_is_a_warning(tmp_path):
    """Where no validation ran the epoch trigger warns once, naming the key, and writes nothing."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_acc")
    _, messages = quietly(fit, tmp_path, cb, validate=False, max_epochs=3)
    assert len([text for text in messages if "'val_acc'" in text and "train_loss" in text]) == 1
    assert names(tmp_path / "d") == []


def test_a_missing_monitor_still_saves_last(tmp_path):
    """A step trigger without its metric warns once and brings ``last`` up to each step all the same."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="nope", every_n_train_steps=1, save_last=True)
    _, messages = quietly(fit, tmp_path, cb, max_epochs=2)
    assert len([text for text in messages if "'nope'" in text]) == 1
    assert names(tmp_path / "d") == ["last.ckpt"]
    assert step_of(cb.last_model_path) == 4


@BOTH
def test_a_missing_monitor_does_not_matter_without_ranking(cls, tmp_path):
    """``save_top_k=0`` never asks for the metric, as in 2.6."""
    fit(tmp_path, cls(dirpath=tmp_path / "d", monitor="nope", save_top_k=0), max_epochs=1)
    assert names(tmp_path / "d") == []


@pytest.mark.parametrize("save_on_train_epoch_end", [None, True, False])
@pytest.mark.parametrize(
    ("every", "expected"), [(1, {2: 5.0, 4: 4.0, 6: 3.0}), (2, {2: 5.0, 4: 4.0, 6: 3.0}), (3, {6: 3.0})]
)
def test_each_model_has_its_own_score(every, expected, save_on_train_epoch_end, tmp_path):
    """Step-triggered files carry the score of the validation of that very model, whenever saves happen."""
    cb = ModelCheckpoint(
        dirpath=tmp_path / "d",
        monitor="val_loss",
        save_top_k=-1,
        every_n_train_steps=every,
        save_on_train_epoch_end=save_on_train_epoch_end,
    )
    fit(tmp_path, cb, vals=[5, 4, 3], max_epochs=3)
    scores = {step_of(path): float(score) for path, score in cb.best_k_models.items()}
    assert {step: score for step, score in scores.items() if step in expected} == expected
    measured = {2: 5.0, 4: 4.0, 6: 3.0}
    assert all(measured.get(step) == score for step, score in scores.items())


def test_a_save_due_between_validations_waits_for_the_next(tmp_path):
    """A save due in the middle of an epoch is made when the next validation has measured a model."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=-1, every_n_train_steps=3)
    fit(tmp_path, cb, batches=5, vals=[5, 4], max_epochs=2)
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == {5: 5.0, 10: 4.0}


def test_a_training_metric_is_fresh_at_each_step(tmp_path):
    """A metric logged in the training step ranks a step-triggered save at once."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="train_loss", save_top_k=-1, every_n_train_steps=1)
    measured = {}
    probe = Probe(
        on_train_batch_end=lambda made: measured.update({made.global_step: float(made.callback_metrics["train_loss"])})
    )
    fit(tmp_path, cb, probe, batches=3, max_epochs=2)
    assert {step_of(path): float(score) for path, score in cb.best_k_models.items()} == measured
    assert len(measured) == 6


class NeverChanges(Scripted):
    """Its training metric has the same value at every step."""

    def training_step(self, batch, batch_idx):
        self.log("flat", 1.0)
        return super().training_step(batch, batch_idx)


def test_an_unchanging_metric_is_fresh_all_the_same(tmp_path):
    """Freshness is a matter of when a metric was logged, not of whether its value differs."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="flat", save_top_k=-1, every_n_train_steps=2)
    fit(tmp_path, cb, model=NeverChanges(), batches=4, max_epochs=2)
    assert steps(tmp_path / "d") == [2, 4, 6, 8]


def test_an_unchanging_validation_metric(tmp_path):
    """Nor does it matter that two validations measure the same value."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=-1, every_n_train_steps=2)
    fit(tmp_path, cb, vals=[5], max_epochs=3)
    assert steps(tmp_path / "d") == [2, 4, 6]


def test_an_epoch_ranked_by_an_old_value_says_so(tmp_path):
    """Epoch saves between validations follow the last value, as the user asked, with one warning."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=-1, save_on_train_epoch_end=True)
    _, messages = quietly(fit, tmp_path, cb, vals=[5, 4], max_epochs=4, check_val_every_n_epoch=2)
    assert len([text for text in messages if "measured on an earlier state" in text]) == 1


def test_manifests_agree_with_the_ranking(tmp_path):
    """What each file says of itself is the score under which it is ranked."""
    import holdfast

    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=3)
    fit(tmp_path, cb, vals=[5, 3, 4, 9], max_epochs=4)
    for path, score in cb.best_k_models.items():
        facts = holdfast.verify(path).facts
        assert facts.metrics["val_loss"] == float(score)
        assert facts.step == step_of(path)
        assert facts.reason == "every epoch"
        assert facts.kind == "lightning"
