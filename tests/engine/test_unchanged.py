"""Training ends with the same bits, whether checkpoints are made or not, and however they are made."""

from __future__ import annotations

import pytest
import torch

from holdfast import Checkpointer
from tests.engine import loops
from tests.engine.loops import OPTIMIZERS
from tests.support.lightning_cases import quietly
from tests.support.states import same

STEPS = 7
WAYS = {
    "waiting": {"async_save": False},
    "behind": {},
    "two images": {"images": 2},
    "overlapped": {"overlap": True},
    "overlapped, two images": {"overlap": True, "images": 2},
    "no copy": {"zero_copy": True},
    "recycled": {"recycle_blocks": True, "overlap": True},
    "skipped": {"on_busy": "skip", "overlap": True},
}
KINDS = {
    **{name: OPTIMIZERS[name] for name in ("adamw-fused", "adamw-foreach", "amsgrad-loop", "sgd-foreach")},
    **{
        kind.__name__: kind
        for kind in (loops.Closure, loops.Scaler, loops.InBackward, loops.OwnFenced, loops.TwoOptimizers, loops.Clips)
    },
}
_bare = {}


def train(kind, ckpt=None):
    """Train; return all that has come of it, the generator's next number too."""
    one, close = kind(), None
    if ckpt is not None:
        made = ckpt(one)
        close = made.close
    for _ in range(STEPS):
        one.train(made if ckpt is not None else None)
        if ckpt is not None:
            made.step()
    if close is not None:
        close()
    return one.states(), torch.rand(3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_change_nothing(kind, way, tmp_path):
    """Weights, moments, buffers and the generator after training with a save at every step are those without any."""

    def checkpointer(one):
        words = {"every_n_train_steps": 1, "save_top_k": 1, "save_last": True}
        return Checkpointer(tmp_path, model=one.model, optimizer=one.optimizers, **words, **WAYS[way])

    if kind not in _bare:
        _bare[kind] = train(KINDS[kind])
    with_checkpoints, _ = quietly(train, KINDS[kind], checkpointer)
    assert list(tmp_path.iterdir())
    assert same(with_checkpoints, _bare[kind])


@pytest.mark.parametrize("way", ["overlapped", "no copy"])
def test_slow_copies_change_nothing(way, slow_copies, tmp_path):
    """The same holds when training has to wait at each fence."""

    def checkpointer(one):
        return Checkpointer(
            tmp_path, model=one.model, optimizer=one.optimizers, every_n_train_steps=1, save_top_k=-1, **WAYS[way]
        )

    assert same(train(loops.Kind, checkpointer), train(loops.Kind))
