"""When a checkpoint is written: steps, time, epochs, validations; with every way to optimize."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch

from holdfast.clock import FakeClock
from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, names, step_of, steps
from tests.support.lightning_parts import Manual, Probe

BOTH = pytest.mark.parametrize("cls", [Stock, ModelCheckpoint], ids=["stock", "ours"])


@BOTH
@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        ({}, {}, [2, 4, 6, 8]),
        ({"every_n_epochs": 2}, {}, [4, 8]),
        ({"every_n_epochs": 3}, {}, [6]),
        ({"every_n_epochs": 0}, {}, []),
        ({"every_n_train_steps": 0}, {}, []),
        ({"every_n_train_steps": 3}, {}, [3, 6]),
        ({"every_n_train_steps": 1}, {}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({}, {"check_val_every_n_epoch": 2}, [4, 8]),
        ({"save_on_train_epoch_end": True}, {"check_val_every_n_epoch": 2}, [2, 4, 6, 8]),
        (
            {"every_n_epochs": 3, "save_on_train_epoch_end": False},
            {"check_val_every_n_epoch": 2, "max_epochs": 6},
            [12],
        ),
        ({}, {"val_check_interval": 0.5}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"save_on_train_epoch_end": True}, {"val_check_interval": 0.5}, [2, 4, 6, 8]),
        ({"save_on_train_epoch_end": False}, {"validate": False}, []),
        ({}, {"validate": False}, [2, 4, 6, 8]),
        ({}, {"max_steps": 3, "max_epochs": -1}, [2, 3]),
        ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 2, "batches": 4, "max_epochs": 1}, [1, 2]),
        ({"every_n_train_steps": 2}, {"accumulate_grad_batches": 3, "batches": 7, "max_epochs": 2}, [2, 4, 6]),
    ],
)
def test_saves_happen_when_the_stock_class_saves(cls, words, options, expected, tmp_path):
    """Epochs, steps, validation schedules and accumulation give the same saves as in Lightning 2.6."""
    fit(tmp_path, cls(dirpath=tmp_path / "d", save_top_k=-1, **words), **{"max_epochs": 4, **options})
    assert steps(tmp_path / "d") == expected


def test_steps_count_finished_optimizer_steps(tmp_path):
    """``{step}`` in a name, ``every_n_train_steps`` and the file's ``global_step`` all count optimizer steps."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", filename="{step}", save_top_k=-1, every_n_train_steps=5)
    fit(tmp_path, cb, batches=10, max_epochs=1)
    assert names(tmp_path / "d") == ["step=10.ckpt", "step=5.ckpt"]
    assert step_of(tmp_path / "d" / "step=5.ckpt") == 5


def test_the_file_holds_the_weights_of_its_step(tmp_path):
    """A step-triggered file holds the weights as they were right after that optimizer step."""
    model, seen = Scripted(), {}
    probe = Probe(
        on_train_batch_end=lambda trainer: seen.update({trainer.global_step: model.layer.weight.detach().clone()})
    )
    fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1, every_n_train_steps=1), probe, model=model)
    for name in names(tmp_path / "d"):
        saved = torch.load(tmp_path / "d" / name, weights_only=True)
        assert torch.equal(saved["state_dict"]["layer.weight"], seen[saved["global_step"]])
    assert len(seen) == 4


@pytest.mark.parametrize("optimizers", [1, 2])
@pytest.mark.parametrize("words", [{"every_n_train_steps": 2}, {"train_time_interval": timedelta(seconds=2)}])
def test_manual_optimization(words, optimizers, tmp_path):
    """Step and time triggers work under manual optimization, with one optimizer and with several."""
    clock = FakeClock()
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1, clock=clock, **words)
    probe = Probe(on_train_batch_start=lambda _: clock.advance(1))
    fit(tmp_path, cb, probe, model=Manual(optimizers=optimizers), batches=4, max_epochs=1)
    if "every_n_train_steps" in words and optimizers == 2:
        assert steps(tmp_path / "d") == [2, 4, 6, 8]
    else:
        assert steps(tmp_path / "d") == [2 * optimizers, 4 * optimizers]


def test_two_optimizers_with_an_odd_period(tmp_path):
    """With two optimizer steps a batch, every third one is met at the steps that end a batch, as in 2.6."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1, every_n_train_steps=3)
    fit(tmp_path, cb, model=Manual(optimizers=2), batches=6, max_epochs=1)
    assert steps(tmp_path / "d") == [6, 12]


def test_manual_optimization_is_ranked(tmp_path):
    """Under manual optimization a monitored step save is ranked by its own validation as well."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", every_n_train_steps=2)
    fit(tmp_path, cb, model=Manual([5, 3, 4]), max_epochs=3)
    assert float(cb.best_model_score) == 3.0
    assert step_of(cb.best_model_path) == 4


def test_time_interval(tmp_path):
    """A save is due when the time has gone by since the last one, and at no other batch."""
    clock = FakeClock()
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=-1, train_time_interval=timedelta(minutes=5), clock=clock)
    probe = Probe(on_train_batch_start=lambda _: clock.advance(120))
    fit(tmp_path, cb, probe, batches=10, max_epochs=1)
    assert steps(tmp_path / "d") == [3, 6, 9]


@BOTH
def test_time_interval_of_zero(cls, tmp_path):
    """``timedelta(0)`` saves at every batch, as in 2.6."""
    fit(tmp_path, cls(dirpath=tmp_path / "d", save_top_k=-1, train_time_interval=timedelta(0)), max_epochs=2)
    assert steps(tmp_path / "d") == [1, 2, 3, 4]


def test_time_interval_with_the_real_clock(tmp_path):
    """Without a clock of one's own the machine's is used."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", train_time_interval=timedelta(hours=1), save_last=True)
    fit(tmp_path, cb, max_epochs=2)
    assert names(tmp_path / "d") == ["last.ckpt"]


@BOTH
def test_without_a_monitor_the_newest_is_kept(cls, tmp_path):
    """``monitor=None`` keeps the newest file, names it best, and scores nothing."""
    cb = cls(dirpath=tmp_path / "d")
    fit(tmp_path, cb, max_epochs=3)
    assert names(tmp_path / "d") == ["epoch=2-step=6.ckpt"]
    assert cb.best_model_path == str(tmp_path / "d" / "epoch=2-step=6.ckpt")
    assert cb.best_model_score is None
    assert cb.best_k_models == {}
    assert cb.kth_best_model_path == ""


@pytest.mark.parametrize("save_top_k", [0, -1])
def test_none_and_all(save_top_k, tmp_path):
    """``save_top_k=0`` writes nothing, ``-1`` keeps everything."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_top_k=save_top_k)
    fit(tmp_path, cb, max_epochs=3)
    assert steps(tmp_path / "d") == ([] if save_top_k == 0 else [2, 4, 6])
    assert cb.best_model_path == ("" if save_top_k == 0 else str(tmp_path / "d" / "epoch=2-step=6.ckpt"))


def test_save_top_k_none_is_one(tmp_path):
    """``save_top_k=None``, which the documentation allows, keeps one."""
    fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=None), max_epochs=3)
    assert names(tmp_path / "d") == ["epoch=2-step=6.ckpt"]


def test_several_callbacks_with_a_trigger_each(tmp_path):
    """Steps, time and epochs at once are three callbacks, each with its own files."""
    clock = FakeClock()
    folder = tmp_path / "d"
    by_step = ModelCheckpoint(folder, "s-{step}", every_n_train_steps=3, save_top_k=-1)
    by_time = ModelCheckpoint(folder, "t-{step}", train_time_interval=timedelta(seconds=4), save_top_k=-1, clock=clock)
    by_epoch = ModelCheckpoint(folder, "e-{step}", every_n_epochs=2, save_top_k=-1)
    probe = Probe(on_train_batch_start=lambda _: clock.advance(1))
    fit(tmp_path, by_step, by_time, by_epoch, probe, max_epochs=4)
    stems = [name.replace("step=", "").removesuffix(".ckpt") for name in names(folder)]
    assert stems == ["e-4", "e-8", "s-3", "s-6", "t-4", "t-8"]


def test_weights_only_files_have_no_optimizer(tmp_path):
    """``save_weights_only`` leaves the optimizer out, and ``load_from_checkpoint`` reads the file."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_weights_only=True)
    model = Scripted()
    fit(tmp_path, cb, model=model, max_epochs=1)
    assert "optimizer_states" not in torch.load(cb.best_model_path)
    loaded = Scripted.load_from_checkpoint(cb.best_model_path)
    assert torch.equal(loaded.layer.weight, model.layer.weight)


def test_loggers_are_told_after_the_commit(tmp_path):
    """``after_save_checkpoint`` comes when the file is there, with the callback's attributes set."""
    from lightning.pytorch.loggers import CSVLogger

    class Listening(CSVLogger):
        told = ()

        def after_save_checkpoint(self, callback):
            paths = [callback.best_model_path, callback.last_model_path, *callback.best_k_models]
            assert [path for path in paths if path and names(tmp_path / "d") and step_of(path) > 0] == paths
            self.told = (*self.told, callback.best_model_path)

    logger = Listening(tmp_path)
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, vals=[5, 4], max_epochs=2, logger=logger)
    assert [path.rpartition("/")[2] for path in logger.told] == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt"]


def test_training_is_not_changed(tmp_path):
    """A run that saves at every step ends with the very weights of one that saves nothing."""
    ends = []
    for words in ({"every_n_train_steps": 1, "save_top_k": -1, "save_last": True}, {"save_top_k": 0}):
        torch.manual_seed(3)
        model = Scripted()
        fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / str(len(ends)), **words), model=model, max_epochs=2)
        ends.append(model.layer.weight.detach())
    assert torch.equal(*ends)
