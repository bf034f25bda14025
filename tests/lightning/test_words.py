"""The words of the constructor, their order and their errors, and the methods that users call."""

from __future__ import annotations

import inspect
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tests.support.lightning_cases import ModelCheckpoint, Scripted, Stock, fit, names, step_of
from tests.support.lightning_models import loader, trainer
from tests.support.lightning_parts import Probe

SEED_ORDER = [
    "dirpath",
    "filename",
    "monitor",
    "verbose",
    "save_last",
    "save_top_k",
    "save_weights_only",
    "mode",
    "auto_insert_metric_name",
    "every_n_train_steps",
    "train_time_interval",
    "every_n_epochs",
    "save_on_train_epoch_end",
    "every_n_val_epochs",
]


def test_positional_order():
    """The positional words are the documentation's; what 2.6 added is keyword-only."""
    parameters = inspect.signature(ModelCheckpoint.__init__).parameters
    positional = [name for name, item in parameters.items() if item.kind is item.POSITIONAL_OR_KEYWORD]
    assert positional == ["self", *SEED_ORDER]
    assert {"save_on_exception", "enable_version_counter"} <= {
        name for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY
    }


def test_positional_values_arrive(tmp_path):
    """Fourteen positional arguments mean what the documentation says."""
    cb = ModelCheckpoint(tmp_path, "{step}", "acc", True, True, 3, True, "max", False, 7, None, None, False, None)
    assert (cb.dirpath, cb.filename, cb.monitor, cb.verbose) == (str(tmp_path.resolve()), "{step}", "acc", True)
    assert (cb.save_last, cb.save_top_k, cb.save_weights_only, cb.mode) == (True, 3, True, "max")
    assert (cb.auto_insert_metric_name, cb._every_n_train_steps, cb.every_n_epochs) == (False, 7, 0)
    assert cb._save_on_train_epoch_end is False


@pytest.mark.parametrize("name", [name for name in SEED_ORDER if name not in ("dirpath", "every_n_val_epochs")])
def test_defaults_are_the_documented_ones(name):
    """Each word has the default of the documentation, which is that of Lightning's class as well."""
    ours = inspect.signature(ModelCheckpoint.__init__).parameters[name].default
    assert ours == inspect.signature(Stock.__init__).parameters[name].default


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"mode": "auto"}, "auto"),
        ({"mode": "MIN"}, "MIN"),
        ({"mode": None}, "None"),
        ({"save_top_k": -2}, "save_top_k=-2"),
        ({"save_top_k": -2, "monitor": "x"}, "save_top_k=-2"),
        ({"save_top_k": 2}, "monitor=None"),
        ({"every_n_train_steps": -1}, "every_n_train_steps=-1"),
        ({"every_n_epochs": -1}, "every_n_epochs=-1"),
        ({"every_n_train_steps": 1, "every_n_epochs": 1}, "mutually exclusive"),
        ({"every_n_train_steps": 1, "train_time_interval": timedelta(1)}, "mutually exclusive"),
        ({"every_n_epochs": 1, "train_time_interval": timedelta(0)}, "mutually exclusive"),
        ({"train_time_interval": timedelta(seconds=-1)}, "train_time_interval"),
        ({"save_last": "yes"}, "yes"),
        ({"save_last": 1}, "save_last"),
        ({"save_top_k": 1.5}, "1.5"),
        ({"save_top_k": True}, "save_top_k"),
        ({"save_top_k": "3"}, "save_top_k"),
        ({"train_time_interval": 5}, "train_time_interval"),
        ({"every_n_train_steps": 2.0}, "every_n_train_steps"),
        ({"every_n_epochs": "2"}, "every_n_epochs"),
        ({"monitor": 3}, "monitor"),
        ({"dirpath": 3}, "dirpath"),
        ({"filename": 3}, "filename"),
        ({"save_weights_only": "no"}, "save_weights_only"),
        ({"save_on_exception": 1}, "save_on_exception"),
        ({"on_save_error": "ignore"}, "on_save_error"),
    ],
)
def test_a_wrong_word_is_an_error_when_built(words, named):
    """What cannot be meant raises Lightning's own exception, which names the value."""
    with pytest.raises(MisconfigurationException, match=named):
        ModelCheckpoint(**words)


@pytest.mark.parametrize("save_top_k", [None, -1, 0, 1])
def test_without_a_monitor_these_are_allowed(save_top_k):
    """Without a monitor ``save_top_k`` may be None, -1, 0 or 1."""
    assert ModelCheckpoint(save_top_k=save_top_k).monitor is None


def test_zeros_turn_triggers_off_and_exclude_nothing():
    """Zeros are no triggers: they may stand beside one that is on."""
    cb = ModelCheckpoint(every_n_train_steps=0, every_n_epochs=2)
    assert (cb._every_n_train_steps, cb.every_n_epochs) == (0, 2)


def test_every_n_val_epochs(tmp_path):
    """The old word warns, says the new one, and means it."""
    with pytest.warns(DeprecationWarning, match="use `every_n_epochs`"):
        cb = ModelCheckpoint(tmp_path / "d", save_top_k=-1, every_n_val_epochs=2)
    assert cb.every_n_epochs == 2
    fit(tmp_path, cb, max_epochs=4)
    assert names(tmp_path / "d") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt"]
    with pytest.warns(DeprecationWarning, match="deprecated"), pytest.raises(MisconfigurationException, match="only"):
        ModelCheckpoint(every_n_val_epochs=2, every_n_epochs=2)


def test_attributes_before_the_first_save():
    """The public attributes have Lightning's initial values, for loggers that read them early."""
    ours, theirs = ModelCheckpoint(monitor="x", mode="max"), Stock(monitor="x", mode="max")
    for name, value in vars(theirs).items():
        if not name.startswith("_"):
            assert getattr(ours, name) == value, name


def test_save_checkpoint_saves_now(tmp_path):
    """``save_checkpoint(trainer)`` saves by the policy, in the middle of an epoch, ranked and last."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="train_loss", save_last=True, every_n_epochs=9)
    probe = Probe(on_train_batch_end=lambda made: cb.save_checkpoint(made) if made.global_step == 3 else None)
    fit(tmp_path, cb, probe, batches=5, max_epochs=1)
    assert step_of(cb.best_model_path) == 3
    assert step_of(cb.last_model_path) == 5


def test_save_checkpoint_after_training(tmp_path):
    """``save_checkpoint(trainer)`` works with a Trainer whose fit has ended."""
    cb = ModelCheckpoint(tmp_path / "d", every_n_epochs=0)
    made = fit(tmp_path, cb, max_epochs=1)
    assert names(tmp_path / "d") == []
    cb.save_checkpoint(made)
    assert step_of(cb.best_model_path) == 2


def test_save_checkpoint_without_a_way_to_save():
    """``trainer.save_checkpoint is None`` is a ``ValueError``, as documented."""
    with pytest.raises(ValueError, match=r"trainer\.save_checkpoint"):
        ModelCheckpoint().save_checkpoint(SimpleNamespace(save_checkpoint=None))


def test_save_checkpoint_with_a_missing_metric(tmp_path):
    """Asking for a save whose metric is missing after a validation names the metric."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="nope", every_n_epochs=0)
    made = fit(tmp_path, cb, max_epochs=1)
    with pytest.raises(MisconfigurationException, match=r"'nope'.*'val_loss'"):
        cb.save_checkpoint(made)


def test_hooks_of_lightning_1_5(tmp_path):
    """``on_init_end`` and ``on_pretrain_routine_start`` work when called: the second makes the directory."""
    cb = ModelCheckpoint(save_last=True)
    made = trainer(tmp_path, cb)
    cb.on_init_end(made)
    cb.on_pretrain_routine_start(made, Scripted())
    assert cb.dirpath == str(tmp_path.resolve() / "checkpoints")
    assert (tmp_path / "checkpoints").is_dir()
    made.fit(Scripted(), loader(), loader())
    assert step_of(cb.last_model_path) == 4


def test_state_hooks_of_lightning_1_5(tmp_path):
    """``on_save_checkpoint`` returns the state and ``on_load_checkpoint`` takes it back."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=2)
    made = fit(tmp_path, cb, max_epochs=3)
    state = cb.on_save_checkpoint(made, made.lightning_module, {})
    assert {"monitor", "best_model_score", "best_model_path", "current_score", "dirpath"} <= set(state)
    again = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=2)
    again.on_load_checkpoint(made, made.lightning_module, state)
    assert again.best_k_models == cb.best_k_models
    assert again.best_model_path == cb.best_model_path


def test_file_exists_and_check_monitor_top_k(tmp_path):
    """The two questions that subclasses ask are answered from what is committed."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=2)
    made = fit(tmp_path, cb, vals=[5, 4, 3], max_epochs=3)
    assert cb.file_exists(cb.best_model_path, made)
    assert not cb.file_exists(tmp_path / "d" / "nothing.ckpt", made)
    assert cb.check_monitor_top_k(made, torch.tensor(3.5))
    assert not cb.check_monitor_top_k(made, torch.tensor(4.0))
    assert not cb.check_monitor_top_k(made, None)
    assert not cb.check_monitor_top_k(made, torch.tensor(float("nan")))


def test_to_yaml(tmp_path):
    """``to_yaml`` writes ``{path: score}``, by default beside the checkpoints."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", save_top_k=2)
    fit(tmp_path, cb, vals=[5, 4, 3], max_epochs=3)
    expected = {str(tmp_path / "d" / "epoch=1-step=4.ckpt"): 4.0, str(tmp_path / "d" / "epoch=2-step=6.ckpt"): 3.0}
    cb.to_yaml()
    assert yaml.safe_load((tmp_path / "d" / "best_k_models.yaml").read_text()) == expected
    cb.to_yaml(tmp_path / "elsewhere.yaml")
    assert yaml.safe_load((tmp_path / "elsewhere.yaml").read_text()) == expected


def test_no_logic_of_the_stock_class_is_reachable():
    """Every method that Lightning's class defines is ours, or says that it is not there."""
    cb = ModelCheckpoint()
    for name, value in vars(Stock).items():
        if name.startswith("__") or not (callable(value) or isinstance(value, (property, staticmethod))):
            continue
        assert inspect.getattr_static(ModelCheckpoint, name) is not value, name
    with pytest.raises(NotImplementedError, match=r"save_checkpoint\(trainer\)"):
        cb._save_topk_checkpoint(None, {})


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_reports_each_decision(verbose, tmp_path, caplog):
    """``verbose`` tells what was saved as which place, and what was not among the best."""
    cb = ModelCheckpoint(tmp_path / "d", monitor="val_loss", verbose=verbose)
    with caplog.at_level("INFO"):
        fit(tmp_path, cb, vals=[5, 6], max_epochs=2)
    assert ("'val_loss' reached 5.00000 (best 5.00000)" in caplog.text) is verbose
    assert ("'val_loss' was not in top 1" in caplog.text) is verbose
