"""Lightning fits as acts: straight to an object store, and with a mirror there."""

from __future__ import annotations

import os
import warnings

import pytest
import torch

import holdfast
from holdfast.storage.remote.claims import give_up_all_claims
from tests.object_store.acts import Act, Told, all_whole, nothing

EPOCHS = 2


def fit(where, folder, told, **words):
    """Fit for two epochs, on from the newest that is there; return the weights."""
    pytest.importorskip("lightning")
    from holdfast.lightning import ModelCheckpoint
    from tests.support.lightning_models import Scripted, loader, trainer

    torch.manual_seed(3)
    callback = ModelCheckpoint(
        where, monitor="val_loss", save_top_k=1, save_last=True, max_failures=100, deadline=None, **words
    )
    module = Scripted()
    at = holdfast.newest(where)
    fitting = trainer(folder, callback, max_epochs=EPOCHS)
    fitting.fit(module, loader(), loader(), ckpt_path=at)
    return [value.tolist() for value in module.state_dict().values()]


def fitted(place, told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(place.url, place.folder, told)


def is_fitted(place, told):
    """Failing saves did not end the fit, nor change its weights; the next one goes on, and all is whole."""
    _right(told)
    all_whole(place.url, 0)
    assert fit(place.url, place.folder, Told()) == _expected(place)
    give_up_all_claims()
    assert all_whole(place.url, 4)


def fitted_with_mirror(place, told):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit(os.path.join(place.folder, "run"), place.folder, told, mirror=place.url, mirror_wait=0.3)


def is_fitted_with_mirror(place, told):
    """The tier of this machine has all; the other what it could get, whole; a sync brings the rest."""
    _right(told)
    here = os.path.join(place.folder, "run")
    if told.result is not None:
        assert all_whole(here, 4)
        all_whole(place.url, 0)
        assert holdfast.sync(here, place.url).problems == ()
        assert all_whole(place.url, 4) >= all_whole(here, 4)


_weights = []


def _expected(place):
    if not _weights:
        _weights.append(fit(os.path.join(place.folder, "expected"), place.folder, Told()))
    return _weights[0]


def _right(told):
    if told.result is not None and _weights:
        assert told.result == _weights[0]


FITS = [
    Act("fit", nothing, fitted, is_fitted),
    Act("fit with a mirror", nothing, fitted_with_mirror, is_fitted_with_mirror),
]
