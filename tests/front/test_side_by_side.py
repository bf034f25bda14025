"""Two checkpointers that share a directory: each keeps to its own files, through a resume too."""

from __future__ import annotations

import os

import pytest
import torch

from holdfast import Checkpointer
from tests.front.loops import names, step_of

SCORES = [3.0, 1.0, 2.0, 4.0, 0.5]
BATCHES = 2


class Pair:
    """A loop with the best two by score, and the newest of every two steps."""

    def __init__(self, folder):
        model = torch.nn.Linear(1, 1)
        self.best = Checkpointer(folder, model=model, filename="best-{epoch}", monitor="val_loss", save_top_k=2)
        self.newest = Checkpointer(folder, model=model, filename="step-{step}", every_n_train_steps=BATCHES)
        self.both = (self.best, self.newest)

    def run(self, begin, end):
        for epoch in range(begin, end):
            for _ in range(BATCHES):
                for ckpt in self.both:
                    ckpt.step()
            for ckpt in self.both:
                ckpt.end_epoch({"val_loss": SCORES[epoch]})


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["best first", "newest first"])
@pytest.mark.parametrize("source", ["newest", "best-epoch=1.ckpt"])
def test_both_are_resumed(tmp_path, order, source):
    """Resumed in either order, neither removes nor ranks a file of the other, and no attribute names what is gone."""
    Pair(tmp_path).run(0, 3)
    before = ["best-epoch=1.ckpt", "best-epoch=2.ckpt", "step-step=6.ckpt"]
    assert names(tmp_path) == before
    path = None if source == "newest" else tmp_path / source
    pair = Pair(tmp_path)
    starts = [pair.both[which].resume(path) for which in order]
    assert names(tmp_path) == before
    assert {os.path.basename(path): float(score) for path, score in pair.best.best_k_models.items()} == {
        "best-epoch=1.ckpt": 1.0,
        "best-epoch=2.ckpt": 2.0,
    }
    assert os.path.basename(pair.newest.best_model_path) == "step-step=6.ckpt"
    pair.run(starts[0].epoch, 5)
    resumed_from = os.path.basename(starts[0].path)
    kept = {"best-epoch=1.ckpt", "best-epoch=4.ckpt", "step-step=10.ckpt", resumed_from}
    assert set(names(tmp_path)) == kept
    for ckpt in pair.both:
        for name in filter(None, (ckpt.best_model_path, ckpt.kth_best_model_path, *ckpt.best_k_models)):
            assert os.path.exists(name), name
    assert step_of(pair.best.best_model_path) == 10
    assert step_of(pair.newest.best_model_path) == 10


def test_one_that_is_alone_takes_over_the_files_of_other_words(tmp_path):
    """A checkpointer with another ``save_top_k`` than before, and nobody beside it, goes on with the files there."""

    def checkpointer(save_top_k):
        model = torch.nn.Linear(1, 1)
        return Checkpointer(tmp_path, model=model, monitor="val_loss", save_top_k=save_top_k, every_n_epochs=1)

    first = checkpointer(3)
    for score in (3.0, 1.0, 2.0):
        first.step()
        first.end_epoch({"val_loss": score})
    del first
    ckpt = checkpointer(2)
    ckpt.resume()
    ckpt.step()
    ckpt.end_epoch({"val_loss": 0.5})
    assert sorted(float(score) for score in ckpt.best_k_models.values()) == [0.5, 1.0]
    # The third is the one that was resumed from.
    assert names(tmp_path) == ["epoch=1-step=2.ckpt", "epoch=2-step=3.ckpt", "epoch=3-step=4.ckpt"]


@pytest.mark.parametrize("late", [False, True], ids=["built before", "built after"])
def test_one_resume_moves_all_of_a_loop(tmp_path, late):
    """Checkpointers of one model on one directory resume together, so that none counts from the start again."""

    def train(epochs):
        model = torch.nn.Linear(1, 1)
        leader = Checkpointer(tmp_path, model=model, monitor="v", filename="a-{epoch}", save_last=True)
        other = None if late else Checkpointer(tmp_path, model=model, filename="b-{epoch}", save_top_k=-1)
        start = leader.resume()
        other = other or Checkpointer(tmp_path, model=model, filename="b-{epoch}", save_top_k=-1)
        for epoch in range(start.epoch, epochs):
            for each in (leader, other):
                each.step()
                each.end_epoch({"v": -epoch})
        leader.close()
        other.close()
        return start.epoch

    assert [train(2), train(4), train(5)] == [0, 2, 4]
    archive = [f"b-epoch={epoch}.ckpt" for epoch in range(5)]
    assert sorted(os.listdir(tmp_path)) == sorted(["a-epoch=4.ckpt", "last.ckpt", *archive])
