"""What goes wrong at a server draws nothing from the generators that a training draws from."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from holdfast.storage import open_store
from holdfast.storage.options import remember
from tests.support.s3 import free_port

pytest.importorskip("s3fs")


@pytest.mark.parametrize(
    "mode", ["legacy", *(pytest.param(mode, marks=pytest.mark.long) for mode in ("standard", "adaptive"))]
)
def test_waits_before_another_try_are_not_the_trainings_chance(mode):
    """Tries that fail, and the random waits between them, leave Python's, NumPy's and torch's generators alone."""
    url = f"s3://bucket/{mode}"
    retries = {"retries": {"max_attempts": 2, "mode": mode}}
    endpoint = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
    options = {"key": "a", "secret": "b", "client_kwargs": endpoint, "config_kwargs": retries}
    remember(url, {**options, "patience": 0.2})
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    with pytest.raises(ConnectionError):
        open_store(url).exists("x.ckpt")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
