"""Two checkpointers that share a directory: each keeps to its own files, through a resume too."""

from __future__ import annotations

import os

import pytest
import torch

from holdfast import Best, Checkpointer, EverySteps, Latest
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


def _policy(folder, model=None, **words):
    model = model or torch.nn.Linear(1, 1)
    # Those that are dropped as a kill would drop them must not listen to signals any more.
    more = {"filename": "{step}", "auto_insert_metric_name": False, "save_on_signal": False}
    return Checkpointer(folder, model=model, **more, **words)


def _go(ckpt, *values):
    for value in values:
        ckpt.step({"v": value})


def _steps(folder):
    return sorted(step_of(folder / name) for name in names(folder))


@pytest.mark.parametrize(
    "then",
    [
        {"every_n_train_steps": 1, "monitor": "v", "save_top_k": 1},
        {"every_n_train_steps": 1, "keep": Best(1, "v")},
        {"save_when": EverySteps(1), "keep": Latest(0)},
        {"save_when": EverySteps(1), "monitor": "w", "save_top_k": 1},
    ],
)
def test_a_run_with_another_policy_prunes_what_the_first_has_left(tmp_path, then):
    """What a run had saved by other words it takes over, also if it was killed before it had pruned all of it."""
    first = _policy(tmp_path, every_n_train_steps=1, save_top_k=-1)
    _go(first, 6.0, 5.0, 4.0, 3.0)
    del first
    second = _policy(tmp_path, **then)
    assert second.resume().step == 4
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    second.step({"v": 2.0, "w": 2.0})
    del second
    for name, data in before.items():  # as if the kill had come between the commit and the pruning
        (tmp_path / name).write_bytes(data)
    assert _steps(tmp_path) == [1, 2, 3, 4, 5]
    third = _policy(tmp_path, **then)
    assert third.resume().step == 5
    third.step({"v": 1.0, "w": 1.0})
    assert _steps(tmp_path) == [5, 6]
    assert os.path.basename(third.best_model_path) == "6.ckpt"


def test_what_two_policies_save_side_by_side_stays_with_each(tmp_path):
    """One that resumes alone, while the other is not there, leaves the files of the other: they had saved in turn."""
    words = [{"monitor": "v", "save_top_k": 2, "every_n_train_steps": 1}, {"every_n_train_steps": 2}]
    pair = [_policy(tmp_path, **each) for each in words]
    for value in (1.0, 2.0, 3.0, 4.0):
        for ckpt in pair:
            ckpt.step({"v": value})
    del pair, ckpt
    before = set(names(tmp_path))
    alone = _policy(tmp_path, **words[1])
    alone.resume()
    _go(alone, 5.0, 6.0)
    assert {"1.ckpt", "2.ckpt"} <= before & set(names(tmp_path))


def test_one_that_comes_later_gets_its_files_back(tmp_path):
    """A new policy that resumes first takes the old one's files over, and gives them back when that one is built."""
    first = _policy(tmp_path, every_n_train_steps=1, save_top_k=-1)
    _go(first, 1.0, 2.0, 3.0)
    first.close()
    model = torch.nn.Linear(1, 1)
    new = _policy(tmp_path, model, save_when=EverySteps(1), keep=Latest(1))
    new.resume()
    old = _policy(tmp_path, model, every_n_train_steps=1, save_top_k=-1)
    for ckpt in (new, old):
        ckpt.step({"v": 4.0})
    assert {1, 2, 3, 4} == set(_steps(tmp_path))
    assert len(new.best_k_models) == 0


def test_of_two_new_policies_one_takes_over_what_the_old_one_has_left(tmp_path):
    """What a run has left has one master: no best of one checkpointer goes because another does not keep it."""
    first = _policy(tmp_path, every_n_train_steps=1, save_top_k=-1)
    _go(first, 1.0, 2.0, 3.0)
    first.close()
    model = torch.nn.Linear(1, 1)
    pair = [_policy(tmp_path, model, save_when=EverySteps(1), keep=keep) for keep in (Latest(2), Best(1, "v"))]
    pair[0].resume()
    for value in (4.0, 5.0):
        for ckpt in pair:
            ckpt.step({"v": value})
            ckpt.wait()
            assert os.path.exists(ckpt.best_model_path)
    assert not pair[0]._inherited & pair[1]._inherited
    assert pair[0]._inherited
