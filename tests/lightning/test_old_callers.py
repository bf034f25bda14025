"""Scripts of older Lightnings: their hooks change nothing, and errors and warnings are such as they catch."""

from __future__ import annotations

import warnings

import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import holdfast
from holdfast.lightning import MisconfigurationError
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, loader, names
from tests.support.lightning_models import trainer


@pytest.mark.parametrize("options", [{"val_check_interval": 0.5}, {"check_val_every_n_epoch": 2}, {}], ids=str)
def test_on_init_end_before_a_fit(tmp_path, options):
    """``on_init_end`` before the loaders are known changes neither the files nor the key of the state."""
    plain = ModelCheckpoint(tmp_path / "plain", save_top_k=-1)
    fit(tmp_path, plain, batches=4, **options)
    called = ModelCheckpoint(tmp_path / "called", save_top_k=-1)
    key = called.state_key
    made = trainer(tmp_path, called, **options)
    called.on_init_end(made)
    assert called.state_key == key
    made.fit(Scripted(), loader(4), loader())
    assert called.state_key == key
    assert names(tmp_path / "called") == names(tmp_path / "plain") != []


def test_the_deprecation_points_at_the_caller():
    """The warning of ``every_n_val_epochs`` names the file that says it, so that Python shows it by default."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ModelCheckpoint(every_n_val_epochs=2)
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "words",
    [
        {"save_top_k": -2},
        {"save_top_k": 2},
        {"mode": "auto"},
        {"every_n_epochs": -1},
        {"every_n_epochs": 1, "every_n_train_steps": 1},
        {"save_last": "yes"},
        {"dirpath": 3},
        {"dirpath": "nosuch://bucket/d"},
        {"on_save_error": "ignore"},
    ],
    ids=str,
)
def test_a_wrong_word_is_caught_either_way(words):
    """A wrong argument is Lightning's ``MisconfigurationException``, a ``ValueError``, and ours, with our code."""
    for kind in (MisconfigurationException, ValueError, holdfast.ConfigurationError, MisconfigurationError):
        with pytest.raises(kind) as caught:
            ModelCheckpoint(**words)
    assert caught.value.code == "HF100"


def test_a_wrong_word_of_the_other_package():
    """The class for ``pytorch_lightning`` raises what that package's users catch, and a ``ValueError`` as well."""
    exceptions = pytest.importorskip("pytorch_lightning.utilities.exceptions")
    twin = pytest.importorskip("holdfast.pytorch_lightning")
    for kind in (exceptions.MisconfigurationException, ValueError, holdfast.ConfigurationError):
        with pytest.raises(kind, match="auto"):
            twin.ModelCheckpoint(mode="auto")
