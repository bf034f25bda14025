"""What people say of checkpoints while a run goes on: pins hold, late metrics count, and go with what they are of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import holdfast
from holdfast import Best, Checkpointer, EveryEpochs, EverySteps, Latest, Within, keygen, sign
from holdfast.front.forgetting import PINNED, taking
from holdfast.front.loop_saving import LoopSaving
from holdfast.storage.local import LocalStore
from tests.front.loops import names as everything


@pytest.fixture
def key(tmp_path_factory):
    """A key pair."""
    path = tmp_path_factory.mktemp("keys") / "key"
    keygen(path)
    return path


def make(folder, **words):
    words = {"save_when": EverySteps(1), "filename": "{step}", "auto_insert_metric_name": False, **words}
    return Checkpointer(folder, model=torch.nn.Linear(2, 1), **words)


def names(folder):
    """The files but for the notes."""
    return [name for name in everything(folder) if not name.startswith(".holdfast-notes/")]


def measure(ckpt, *values):
    """End an epoch of one step with each value."""
    for value in values:
        ckpt.step()
        ckpt.end_epoch({"v": value})
        ckpt.wait()


def go(ckpt, *values):
    for value in values:
        ckpt.step({"v": value})


def test_a_pinned_checkpoint_stays_until_it_is_unpinned(tmp_path):
    """A pin that another process sets counts from the next commit on, in any rules; so does its end."""
    with make(tmp_path, keep=Latest(1)) as ckpt:
        go(ckpt, 1)
        holdfast.open(tmp_path / "1.ckpt").pin()
        go(ckpt, 2, 3)
        assert sorted(names(tmp_path)) == ["1.ckpt", "3.ckpt"]
        holdfast.open(tmp_path / "1.ckpt").unpin()
        go(ckpt, 4)
        assert names(tmp_path) == ["4.ckpt"]


@pytest.mark.parametrize("words", [{"keep": [Latest(0), Within(1)]}, {"monitor": "v", "save_top_k": 1}])
def test_a_pin_holds_over_a_resume_and_for_the_seed_words(tmp_path, words):
    """A run that goes on knows the pins of its checkpoints, whatever its words are."""
    with make(tmp_path, **words) as ckpt:
        go(ckpt, 3)
        holdfast.open(tmp_path / "1.ckpt").pin()
        go(ckpt, 2)
    with make(tmp_path, **words) as ckpt:
        assert ckpt.resume().step == 2
        go(ckpt, 1, 0)
    assert sorted(names(tmp_path)) == ["1.ckpt", "2.ckpt", "4.ckpt"]


def test_a_late_metric_moves_the_ranking(tmp_path):
    """A score that an evaluation attaches afterwards decides what is best and what is kept, now and after a resume."""
    words = {"keep": Latest(1) | Best(1, "bleu", mode="max")}
    with make(tmp_path, **words) as ckpt:
        go(ckpt, 1)
        holdfast.open(tmp_path / "1.ckpt").add_metrics({"bleu": 20.0})
        go(ckpt, 2, 3)
        holdfast.open(tmp_path / "3.ckpt").add_metrics({"bleu": 30.0})
        assert ckpt.best_model_path == str(tmp_path / "1.ckpt")
        go(ckpt, 4)
        assert ckpt.best_model_path == str(tmp_path / "3.ckpt")
        assert float(ckpt.best_model_score) == 30
    assert sorted(names(tmp_path)) == ["3.ckpt", "4.ckpt"]
    with make(tmp_path, **words) as ckpt:
        ckpt.resume()
        assert ckpt.best_model_path == str(tmp_path / "3.ckpt")


def test_a_save_is_refused_by_the_scores_of_now(tmp_path):
    """By `save_top_k` the very next save is judged by a score that came late, though nothing was committed since."""
    with make(tmp_path, save_when=EveryEpochs(1), monitor="v", save_top_k=1) as ckpt:
        measure(ckpt, 0.1, 0.2)
        assert names(tmp_path) == ["1.ckpt"]
        holdfast.open(tmp_path / "1.ckpt").add_metrics({"v": 5.0})
        measure(ckpt, 0.3, 0.4)
    assert names(tmp_path) == ["3.ckpt"]


def test_the_name_that_is_used_again_is_that_of_the_worst_by_now(tmp_path):
    """What a late score has made one of the best is not written over by the save that pushes another out."""
    with make(tmp_path, save_when=EveryEpochs(1), monitor="v", save_top_k=2, filename="best") as ckpt:
        measure(ckpt, 5.0, 3.0)
        holdfast.catalog(tmp_path).best().add_metrics({"v": 9.0})
        measure(ckpt, 4.0)
    assert sorted(item.score for item in holdfast.catalog(tmp_path)) == [4.0, 5.0]


def test_nothing_is_left_of_what_was_said_of_a_checkpoint_that_goes(tmp_path, key):
    """With the file its notes go, and with the last of them the folder; so does its signature."""
    with make(tmp_path, keep=Latest(1)) as ckpt:
        go(ckpt, 1)
        holdfast.open(tmp_path / "1.ckpt").note("looks odd").tag("paper")
        sign(tmp_path / "1.ckpt", key=key)
        go(ckpt, 2)
        assert names(tmp_path) == ["2.ckpt"]
        assert not (tmp_path / ".holdfast-notes").exists()


def test_notes_stay_while_another_name_of_the_save_does(tmp_path):
    """The notes are those of the save: they go with its last name."""
    with make(tmp_path, keep=Latest(1), save_last=True) as ckpt:
        go(ckpt, 1)
        holdfast.open(tmp_path / "1.ckpt").tag("paper")
        assert holdfast.open(tmp_path / "last.ckpt").tags == ("paper",)
        go(ckpt, 2)
        assert not (tmp_path / ".holdfast-notes").exists()


def test_what_a_kill_left_of_a_removed_checkpoint_is_swept(tmp_path, key):
    """A signature and notes whose checkpoint is gone are removed when the next run begins; all others are left."""
    with make(tmp_path, keep=Latest(2)) as ckpt:
        go(ckpt, 1, 2)
    for step in (1, 2):
        holdfast.open(tmp_path / f"{step}.ckpt").tag("paper")
        sign(tmp_path / f"{step}.ckpt", key=key)
    (tmp_path / "notes.txt.sig").write_text("somebody's own")
    (tmp_path / "1.ckpt").unlink()  # and the kill came
    make(tmp_path, keep=Latest(2)).close()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    notes = {name for name in left if name.startswith(".holdfast-notes")}
    assert left - notes == {"2.ckpt", "2.ckpt.sig", "notes.txt.sig"}
    assert len(notes) == 1
    assert holdfast.open(tmp_path / "2.ckpt").tags == ("paper",)


def test_no_notes_are_swept_while_a_file_cannot_say_whose_they_are(tmp_path):
    """A damaged checkpoint keeps what was said of it: nobody knows which notes are its."""
    with make(tmp_path, keep=Latest(1)) as ckpt:
        go(ckpt, 1)
    holdfast.open(tmp_path / "1.ckpt").pin()
    os.truncate(tmp_path / "1.ckpt", 100)
    make(tmp_path, keep=Latest(1)).close()
    assert len(list((tmp_path / ".holdfast-notes").rglob("*.json"))) == 1


def test_a_pin_is_looked_for_once_more_just_before_the_file_goes(tmp_path, monkeypatch):
    """A pin that comes after the decision, and before the removal, holds."""
    decided = LoopSaving._remove

    def pinned_meanwhile(self, name, now, before):
        with taking(self._run, before, name, {}) as left:
            assert left == ""
        holdfast.open(Path(self.dirpath) / name).pin()
        with taking(self._run, before, name, {}) as left:
            assert left == PINNED
        return decided(self, name, now, before)

    with make(tmp_path, keep=Latest(1)) as ckpt:
        go(ckpt, 1)
        monkeypatch.setattr(LoopSaving, "_remove", pinned_meanwhile)
        go(ckpt, 2)
        monkeypatch.setattr(LoopSaving, "_remove", decided)
        go(ckpt, 3)
    assert sorted(names(tmp_path)) == ["1.ckpt", "3.ckpt"]


def test_a_change_that_cannot_be_read_pins(tmp_path):
    """What cannot be read may have been a pin: its checkpoint stays."""
    with make(tmp_path, keep=Latest(1)) as ckpt:
        go(ckpt, 1)
        holdfast.open(tmp_path / "1.ckpt").tag("paper")
        next((tmp_path / ".holdfast-notes").rglob("*.json")).write_bytes(b"{")
        go(ckpt, 2)
    assert sorted(names(tmp_path)) == ["1.ckpt", "2.ckpt"]


def test_a_pinned_file_is_not_written_over(tmp_path):
    """Where a run would use the name of what it drops again, a pinned file keeps its name and bytes."""
    with Checkpointer(tmp_path, model=torch.nn.Linear(2, 1), filename="m", every_n_train_steps=1) as ckpt:
        ckpt.step()
        holdfast.open(tmp_path / "m.ckpt").pin()
        before = (tmp_path / "m.ckpt").read_bytes()
        ckpt.step()
        ckpt.step()
    assert sorted(names(tmp_path)) == ["m-v1.ckpt", "m.ckpt"]
    assert (tmp_path / "m.ckpt").read_bytes() == before


@pytest.mark.parametrize("late", [False, True])
def test_what_is_said_of_a_state_outlives_that_it_is_saved_again(tmp_path, late):
    """A state that is measured after its save does not take the place of a file with a tag or a late metric."""
    with make(tmp_path, keep=Latest(2) | Best(1, "bleu", mode="max"), monitor="v", async_save=False) as ckpt:
        go(ckpt, 1)
        ckpt.step()
        path = tmp_path / "2.ckpt"
        if late:
            ckpt.add_metrics(path, {"bleu": 20.0})
        else:
            ckpt.tag(path, "paper")
        ckpt.end_validation({"v": 2.0})
        said = holdfast.open(path)
        assert (said.tags, said.metrics) == (((), {"bleu": 20.0}) if late else (("paper",), {}))
        ckpt.step({"v": 3.0})
        assert path.exists() == late  # a tag is no pin: the rules may drop it, and do


def test_a_pin_during_the_write_of_what_takes_its_name_holds(tmp_path, monkeypatch):
    """A save whose name is pinned while it is written fails aloud; that file stays, and the next save counts up."""
    real, due, told = LocalStore.put, [], []

    def put(self, name, chunks, *, over="", gate=None, size=0):
        def pinning():
            while name == "best.ckpt" and due:
                due.pop()
                holdfast.open(tmp_path / name).pin()
            if gate is not None:
                gate()

        return real(self, name, chunks, over=over, gate=pinning)

    monkeypatch.setattr(LocalStore, "put", put)
    with make(tmp_path, monitor="v", save_top_k=1, filename="best", on_error="raise") as ckpt:
        go(ckpt, 3)
        ckpt.wait()
        due.append(True)
        try:
            go(ckpt, 2)
            ckpt.wait()  # by now what failed behind the training's back is told
        except holdfast.SaveError as error:
            told.append(str(error))
        go(ckpt, 1)
    assert len(told) == 1
    assert "what has this name was pinned" in told[0]
    assert holdfast.open(tmp_path / "best.ckpt").step == 1
    assert ckpt.best_model_path == str(tmp_path / "best-v1.ckpt")
    assert sorted(names(tmp_path)) == ["best-v1.ckpt", "best.ckpt"]
