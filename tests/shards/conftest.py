"""A sharded checkpoint to look at."""

from __future__ import annotations

import pytest

from tests.support.shards import save_sharded


@pytest.fixture
def made(tmp_path):
    """One sharded checkpoint in a run's directory."""
    return save_sharded(tmp_path / "run" / "a.ckpt", sequence=1, step=5, metrics={"val_loss": 0.5})
