"""A run that was interrupted goes on as if it had not been."""

from __future__ import annotations

import os
import random
import shutil

import pytest
import torch

import holdfast
from holdfast import Checkpointer, DamagedCheckpointError, LoadError
from tests.front.loops import Loop, names, step_of
from tests.support.files import content, put

SCORES = [5.0, 2.0, 4.0, 1.0, 3.0]


def uninterrupted(folder, epochs=5, **words):
    loop = Loop()
    loop.run(loop.checkpointer(folder, **words), epochs, scores=SCORES)
    return loop.state()


@pytest.mark.parametrize("stop_at", [4, 5, 9, 12, 19])
@pytest.mark.parametrize(
    "words",
    [
        {"every_n_train_steps": 1},
        {"save_last": True, "every_n_train_steps": 3},
        {"monitor": "val_loss", "save_last": True},
    ],
    ids=["each step", "third steps", "epochs"],
)
def test_the_end_is_the_same_to_the_bit(tmp_path, words, stop_at):
    """Interrupted anywhere and resumed from its newest checkpoint, the run ends with the same everything."""
    expected = uninterrupted(tmp_path / "whole", **words)
    first = Loop()
    first.run(first.checkpointer(tmp_path / "run", **words), 5, stop_at=stop_at, scores=SCORES)
    second = Loop()
    ckpt = second.checkpointer(tmp_path / "run", **words)
    start = ckpt.resume()
    assert start.missed == ()
    assert start.step <= stop_at
    second.run(ckpt, 5, start=start, scores=SCORES)
    assert second.state() == expected
    resumed_from = {os.path.basename(start.path)} if start.path else set()
    assert set(names(tmp_path / "run")) == {*names(tmp_path / "whole"), *resumed_from}


def test_checkpoints_change_nothing_in_the_training(tmp_path):
    """A run that saves at every step and one that never saves end with the same everything."""
    without = Loop()
    without.run(without.checkpointer(tmp_path / "none", every_n_epochs=0), 3)
    assert names(tmp_path / "none") == []
    expected = without.state()
    saving = Loop()
    saving.run(saving.checkpointer(tmp_path / "all", every_n_train_steps=1, save_last=True), 3)
    assert saving.state() == expected


def test_in_the_middle_of_an_epoch(tmp_path):
    """Resumed in mid-epoch, ``remaining`` leaves out the batches already trained on, in that epoch only."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path, every_n_train_steps=3), 5, stop_at=6)
    start = Loop().checkpointer(tmp_path).resume()
    assert (start.epoch, start.step, start.batches) == (1, 6, 2)
    assert list(start.remaining("abcd", 1)) == ["c", "d"]
    assert list(start.remaining("abcd", 2)) == ["a", "b", "c", "d"]


def test_a_fresh_start_says_so(tmp_path):
    """An empty directory is a fresh start, with the reason, and changes no generator."""
    random.seed(1)
    before = torch.get_rng_state(), random.getstate()
    start = Checkpointer(tmp_path / "run", model=torch.nn.Identity()).resume()
    assert (start.epoch, start.step, start.path) == (0, 0, None)
    assert "fresh start" in start.reason
    assert str(tmp_path) in start.reason
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def damage(path):
    """Turn one bit over in the middle of a file."""
    data = bytearray(content(path))
    data[len(data) // 2] ^= 1
    put(path, bytes(data))


def test_a_damaged_newest_is_passed_over_and_named(tmp_path):
    """The newest checkpoint is damaged: a warning names it and the record, and the one before it is resumed."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path, every_n_train_steps=4, save_top_k=-1), 3)
    damage(tmp_path / "epoch=2-step=12.ckpt")
    with pytest.warns(UserWarning, match="passed over"):
        assert holdfast.newest(tmp_path) == str(tmp_path / "epoch=1-step=8.ckpt")
    with pytest.warns(UserWarning, match=r"epoch=2-step=12\.ckpt is damaged: record .*CRC-32"):
        start = Loop().checkpointer(tmp_path).resume()
    assert start.path == str(tmp_path / "epoch=1-step=8.ckpt")


def test_if_all_are_damaged_it_is_a_fresh_start(tmp_path):
    """With nothing whole left, resume says that it starts afresh; a path that was asked for is an error instead."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path), 1)
    damage(tmp_path / "epoch=0-step=4.ckpt")
    with pytest.raises(DamagedCheckpointError, match="epoch=0-step=4"):
        Loop().checkpointer(tmp_path).resume(tmp_path / "epoch=0-step=4.ckpt")
    with pytest.warns(UserWarning, match="passed over"):
        assert Loop().checkpointer(tmp_path).resume().path is None


def test_a_certain_checkpoint(tmp_path):
    """A path that is given is resumed from, wherever it lies, and neither removed nor written over."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path / "old", every_n_train_steps=4, save_top_k=-1), 3)
    chosen = tmp_path / "old" / "epoch=0-step=4.ckpt"
    before = content(chosen)
    for folder in ("old", "new"):
        again = Loop()
        ckpt = again.checkpointer(tmp_path / folder, every_n_train_steps=4)
        start = ckpt.resume(chosen)
        assert (start.step, start.path) == (4, str(chosen))
        again.run(ckpt, 5, start=start)
        assert content(chosen) == before
    facts = holdfast.verify(tmp_path / "new" / names(tmp_path / "new")[0]).facts
    assert facts.resumed_from.step == 4


def test_the_file_resumed_from_is_kept_by_the_resumed_run(tmp_path):
    """With ``save_top_k=1`` the resumed run prunes its own files, never the one that it resumed from."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path), 5, stop_at=6)
    again = Loop()
    ckpt = again.checkpointer(tmp_path)
    start = ckpt.resume()
    again.run(ckpt, 4, start=start)
    assert names(tmp_path) == ["epoch=0-step=4.ckpt", "epoch=3-step=16.ckpt"]


def test_a_moved_run_keeps_its_ranking(tmp_path):
    """A directory that was moved is resumed with its ranking, best and last, and goes on pruning there."""
    words = {"monitor": "val_loss", "save_top_k": 2, "save_last": True}
    first = Loop()
    first.run(first.checkpointer(tmp_path / "here", **words), 5, stop_at=15, scores=SCORES)
    shutil.move(tmp_path / "here", tmp_path / "there")
    second = Loop()
    ckpt = second.checkpointer(tmp_path / "there", **words)
    start = ckpt.resume()
    assert ckpt.best_model_path == str(tmp_path / "there" / "epoch=1-step=8.ckpt")
    assert float(ckpt.best_model_score) == 2.0
    second.run(ckpt, 5, start=start, scores=SCORES)
    assert names(tmp_path / "there") == sorted(
        {"epoch=1-step=8.ckpt", "epoch=3-step=16.ckpt", "last.ckpt", os.path.basename(start.path)}
    )
    assert not (tmp_path / "here").exists()
    assert step_of(tmp_path / "there" / "last.ckpt") == 20


def test_what_could_not_be_restored_is_said(tmp_path):
    """A checkpoint without the state of something in the loop: the answer and a warning name it."""
    loop = Loop()
    ckpt = Checkpointer(tmp_path, model=loop.model)
    ckpt.step()
    ckpt.save_checkpoint()
    with pytest.warns(UserWarning, match="without optimizer 0, lr_scheduler 0, counter"):
        start = Loop().checkpointer(tmp_path).resume()
    assert start.missed == ("optimizer 0", "lr_scheduler 0", "counter")


def test_another_model_is_an_error_that_names_the_file(tmp_path):
    """A checkpoint of a model of another shape is a LoadError that names the file and the layer."""
    ckpt = Checkpointer(tmp_path, model=torch.nn.Linear(2, 3))
    ckpt.step()
    ckpt.save_checkpoint()
    with pytest.raises(LoadError, match=r"epoch=0-step=1\.ckpt does not fit(?s:.)*weight"):
        Checkpointer(tmp_path, model=torch.nn.Linear(3, 3)).resume()


def test_weights_alone_cannot_be_resumed(tmp_path):
    """Files with weights alone are not taken for the newest: training cannot go on from them."""
    ckpt = Checkpointer(tmp_path, model=torch.nn.Linear(1, 1), save_weights_only=True)
    ckpt.step()
    ckpt.save_checkpoint()
    assert len(names(tmp_path)) == 1
    assert holdfast.newest(tmp_path) is None
    assert Checkpointer(tmp_path, model=torch.nn.Linear(1, 1)).resume().path is None


def test_modification_times_do_not_matter(tmp_path):
    """The newest is the one saved last, even if a copy gave the files other times."""
    loop = Loop()
    loop.run(loop.checkpointer(tmp_path, every_n_train_steps=4, save_top_k=-1), 3)
    for age, name in enumerate(names(tmp_path)):
        os.utime(tmp_path / name, (10**9 - age, 10**9 - age))
    assert holdfast.newest(tmp_path) == str(tmp_path / "epoch=2-step=12.ckpt")


def test_leftovers_are_cleared_at_the_start(tmp_path):
    """What an interrupted save left behind is removed when the next checkpointer is built, here and in subfolders."""
    (tmp_path / "deep").mkdir()
    for name in (".holdfast-1.tmp", "deep/.holdfast-2.tmp"):
        put(tmp_path / name, b"half")
    Checkpointer(tmp_path, filename="deep/{epoch}")
    assert names(tmp_path) == []
