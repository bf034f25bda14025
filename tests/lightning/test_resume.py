"""Resume: the ranking survives in the same place, in a moved or copied run, and after a crash."""

from __future__ import annotations

import os
import shutil
import signal

import pytest
import torch

from tests.lightning import jobs_killed
from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, names, quietly, step_of, steps
from tests.support.lightning_parts import CrashAt
from tests.support.ranks import start_ranks


def _train(folder, vals, epochs, ckpt_path=None, **words):
    cb = ModelCheckpoint(**{"dirpath": folder, "monitor": "val_loss", "save_top_k": 2, "save_last": True, **words})
    fit(os.path.dirname(folder), cb, vals=vals, max_epochs=epochs, ckpt_path=ckpt_path)
    return cb


def _scores(cb):
    return {step_of(path): float(score) for path, score in cb.best_k_models.items()}


@pytest.mark.parametrize("source", ["last.ckpt", "epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last"])
def test_a_resumed_run_goes_on_ranking(source, tmp_path):
    """Best, worst and last are restored, and what falls out of the best is removed as if never interrupted."""
    folder = str(tmp_path / "d")
    _train(folder, [5, 3, 4], 3)
    path = source if source == "last" else os.path.join(folder, source)
    # From the second epoch's file the third epoch is trained again.
    cb = _train(folder, [4, 2] if "step=4" in source else [2], 4, path)
    assert float(cb.best_model_score) == 2.0
    assert step_of(cb.best_model_path) == 8
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    protected = ["epoch=2-step=6.ckpt"] if "step=6" in source else []
    assert names(folder) == sorted(["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt", *protected])
    assert step_of(cb.last_model_path) == 8
    assert cb.last_model_path == os.path.join(folder, "last.ckpt")


def test_the_source_is_never_removed(tmp_path):
    """The file resumed from stays, though it is no longer among the best; nor is its name written over."""
    folder = str(tmp_path / "d")
    _train(folder, [5], 1, save_top_k=1, save_last=None)
    source = os.path.join(folder, "epoch=0-step=2.ckpt")
    with open(source, "rb") as file:
        before = file.read()
    cb = _train(folder, [4, 3, 2], 4, source, save_top_k=1, save_last=None)
    assert names(folder) == ["epoch=0-step=2.ckpt", "epoch=3-step=8.ckpt"]
    assert _scores(cb) == {8: 2.0}
    with open(source, "rb") as file:
        assert file.read() == before


@pytest.mark.parametrize("filename", ["model", "{epoch}"])
def test_the_source_is_never_written_over(filename, tmp_path):
    """With a constant name the file resumed from keeps its name and its bytes."""
    folder = str(tmp_path / "d")
    words = {"filename": filename, "save_top_k": 1, "monitor": None, "save_last": None}
    source = _train(folder, [5], 1, **words).best_model_path
    cb = _train(folder, [5], 4, source, **words)
    assert step_of(source) == 2
    assert step_of(cb.best_model_path) == 8
    assert steps(folder) == [2, 8]


def test_last_as_the_source_is_written_on_elsewhere(tmp_path):
    """A run that resumes from ``last.ckpt`` may not destroy it before there is a newer whole one."""
    folder = str(tmp_path / "d")
    _train(folder, [5], 1)
    cb = _train(folder, [4, 3], 3, os.path.join(folder, "last.ckpt"))
    assert step_of(cb.last_model_path) == 6
    assert names(folder) == ["epoch=1-step=4.ckpt", "epoch=2-step=6.ckpt", "last.ckpt"]


@pytest.mark.parametrize("kept", [True, False], ids=["copied", "moved"])
def test_a_moved_or_copied_run_keeps_its_ranking(kept, tmp_path):
    """In its new place the run ranks and prunes its old files; the original, if there is one, is not touched."""
    old, new = str(tmp_path / "old" / "d"), str(tmp_path / "new" / "d")
    _train(old, [5, 3, 4], 3)
    before = names(old)
    shutil.copytree(old, new)
    if not kept:
        shutil.rmtree(tmp_path / "old")
    cb, messages = quietly(_train, new, [2], 4, os.path.join(new, "last.ckpt"))
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert names(new) == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert step_of(cb.last_model_path) == 8
    assert not [text for text in messages if "dirpath has changed" in text]
    assert names(old) == (before if kept else [])


def test_a_run_whose_root_was_moved(tmp_path):
    """The same with the default directory, below a ``default_root_dir`` that was moved."""

    def train(root, vals, epochs, ckpt_path=None):
        cb = ModelCheckpoint(monitor="val_loss", save_top_k=2)
        fit(root, cb, vals=vals, max_epochs=epochs, ckpt_path=ckpt_path)
        return cb

    first = train(tmp_path / "old", [5, 3, 4], 3)
    os.rename(tmp_path / "old", tmp_path / "new")
    cb = train(tmp_path / "new", [9, 2], 4, first.best_model_path.replace("/old/", "/new/"))
    assert _scores(cb) == {4: 3.0, 8: 2.0}
    assert names(tmp_path / "new") == ["checkpoints/epoch=1-step=4.ckpt", "checkpoints/epoch=3-step=8.ckpt"]
    assert float(cb.best_model_score) == 2.0
    assert not (tmp_path / "old").exists()


def test_a_run_that_goes_on_elsewhere_begins_a_ranking_of_its_own(tmp_path):
    """With another ``dirpath`` only the best path comes along, with a warning; the old files stay."""
    _train(str(tmp_path / "one"), [5, 3], 2)
    source = str(tmp_path / "one" / "last.ckpt")
    cb, messages = quietly(_train, str(tmp_path / "two"), [4, 6], 4, source)
    assert [text for text in messages if "dirpath has changed" in text]
    assert steps(tmp_path / "one") == [2, 4, 4]
    assert _scores(cb) == {6: 4.0, 8: 6.0}


def test_what_the_state_forgot_is_found_again(tmp_path):
    """Files that were committed after the state was taken are ranked and pruned again: no orphans."""
    folder = str(tmp_path / "d")
    _train(folder, [5, 3, 4], 3, save_top_k=3, save_last=None)
    source = os.path.join(folder, "epoch=0-step=2.ckpt")
    cb = _train(folder, [2, 1, 9], 4, source, save_top_k=3, save_last=None)
    kept = {path.rpartition("/")[2] for path in cb.best_k_models}
    assert float(cb.best_model_score) == 1.0
    assert sorted(cb.best_k_models.values()) == [1.0, 2.0, 3.0]
    assert set(names(folder)) == kept | {"epoch=0-step=2.ckpt"}


def test_killed_between_commit_and_removal(tmp_path):
    """SIGKILL after a commit, before the older file is removed: the next run finds both and keeps the best."""
    folder = str(tmp_path / "d")
    with start_ranks(1, jobs_killed.before_the_removal, folder, store=None) as run:
        (outcome,) = run.wait()
    assert outcome.signal == signal.SIGKILL, outcome
    assert steps(folder) == [2, 4]
    cb = _train(folder, [3], 3, os.path.join(folder, "epoch=1-step=4.ckpt"), save_top_k=1, save_last=None)
    assert _scores(cb) == {6: 3.0}
    assert steps(folder) == [4, 6]


def test_temporaries_of_a_crash_are_cleared_away(tmp_path):
    """A temporary whose writer is gone is removed by the next run; foreign files are let be."""
    folder = tmp_path / "d"
    folder.mkdir()
    for name in (".holdfast-0123456789abcdef.tmp", "notes.txt", ".hidden"):
        (folder / name).write_bytes(b"x")
    _train(str(folder), [5], 1, save_last=None)
    assert names(folder) == [".hidden", "epoch=0-step=2.ckpt", "notes.txt"]


def test_a_run_that_is_over_writes_nothing_more(tmp_path):
    """Resuming at the end, with no epoch left, changes neither files nor ranking."""
    folder = str(tmp_path / "d")
    _train(folder, [5, 3], 2)
    stamps = {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in names(folder)}
    cb = _train(folder, [1], 2, os.path.join(folder, "last.ckpt"))
    assert {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in names(folder)} == stamps
    assert _scores(cb) == {2: 5.0, 4: 3.0}


def test_interrupted_and_resumed_is_as_uninterrupted(tmp_path):
    """A run that crashes and resumes from ``last`` ends with the very weights of one that does not."""

    def train(folder, *parts, **options):
        torch.manual_seed(5)
        model = Scripted()
        cb = ModelCheckpoint(folder, every_n_train_steps=1, save_last=True, save_top_k=0)
        fit(tmp_path, cb, *parts, model=model, batches=4, max_epochs=3, **options)
        return model.layer.weight.detach()

    whole = train(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="scripted"):
        train(tmp_path / "cut", CrashAt(step=9))
    assert torch.equal(train(tmp_path / "cut", ckpt_path=str(tmp_path / "cut" / "last.ckpt")), whole)


def test_deleted_files_are_forgotten(tmp_path):
    """A ranked file that somebody deleted between the runs is no longer named by any attribute."""
    folder = str(tmp_path / "d")
    _train(folder, [5, 3, 4], 3)
    os.remove(os.path.join(folder, "epoch=1-step=4.ckpt"))
    cb = _train(folder, [6], 4, os.path.join(folder, "last.ckpt"))
    assert _scores(cb) == {6: 4.0, 8: 6.0}
    assert float(cb.best_model_score) == 4.0


def test_other_settings_at_resume(tmp_path):
    """Resuming with a smaller ``save_top_k`` prunes down to it; the ranking is found all the same."""
    folder = str(tmp_path / "d")
    _train(folder, [5, 3, 4], 3, save_top_k=3)
    cb = _train(folder, [6], 4, os.path.join(folder, "last.ckpt"), save_top_k=2)
    assert _scores(cb) == {4: 3.0, 6: 4.0}
