"""``save_last``: the state at the end of every epoch, its bytes written once."""

from __future__ import annotations

import os

import fsspec
import pytest
import torch

from tests.support.lightning_cases import ModelCheckpoint, Scripted, fit, names, step_of
from tests.support.lightning_parts import Probe


class CountsItsSaves(Scripted):
    """Counts how often its state was asked for."""

    def __init__(self, vals):
        super().__init__(vals)
        self.saves = 0

    def on_save_checkpoint(self, checkpoint):
        self.saves += 1


@pytest.mark.parametrize("save_last", [True, "link"])
def test_last_follows_every_epoch(save_last, tmp_path):
    """``last.ckpt`` is the state of each epoch's end, though the ranking keeps an older one."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_last=save_last)
    seen = []
    probe = Probe(
        on_train_epoch_start=lambda _: seen.append([step_of(tmp_path / "d" / n) for n in names(tmp_path / "d")])
    )
    fit(tmp_path, cb, probe, vals=[5, 6, 4, 7], max_epochs=4)
    assert seen == [[], [2, 2], [2, 4], [6, 6]]
    assert step_of(cb.last_model_path) == 8
    assert step_of(cb.best_model_path) == 6
    assert cb.save_last == save_last


def test_the_bytes_are_written_once(tmp_path):
    """When a state is both ranked and last it is serialised once, and the names share the bytes."""
    model = CountsItsSaves([5, 4, 3])
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, model=model, max_epochs=3)
    assert model.saves == 3
    assert os.path.samefile(cb.last_model_path, cb.best_model_path)
    assert not os.path.islink(cb.last_model_path)


def test_last_is_itself_after_the_ranked_file_goes(tmp_path):
    """``last`` is no symbolic link: removing or overwriting the ranked file leaves it whole."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, vals=[5, 4], max_epochs=2)
    os.remove(cb.best_model_path)
    assert step_of(cb.last_model_path) == 4


def test_a_plain_copy_where_there_are_no_links(tmp_path, monkeypatch):
    """On a filesystem with neither hard links nor reflinks ``last`` is a copy, still from one serialisation."""

    def refuse(*_, **__):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    model = CountsItsSaves([5, 4])
    cb = ModelCheckpoint(dirpath=tmp_path / "d", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, model=model, max_epochs=2)
    assert model.saves == 2
    assert not os.path.samefile(cb.last_model_path, cb.best_model_path)
    with open(cb.last_model_path, "rb") as last, open(cb.best_model_path, "rb") as best:
        assert last.read() == best.read()


def test_last_at_each_step_save(tmp_path):
    """With a step trigger ``last`` is brought up to each of its steps and to each epoch's end."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", every_n_train_steps=2, save_last=True, save_top_k=0)
    seen = []
    probe = Probe(
        on_train_batch_start=lambda _: seen.append([step_of(tmp_path / "d" / n) for n in names(tmp_path / "d")])
    )
    fit(tmp_path, cb, probe, batches=5, max_epochs=1)
    assert seen == [[], [], [2], [2], [4]]
    assert step_of(cb.last_model_path) == 5


def test_last_when_training_is_stopped_in_an_epoch(tmp_path):
    """``max_steps`` in the middle of an epoch leaves the final state in ``last``."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", every_n_epochs=5, save_last=True)
    fit(tmp_path, cb, batches=4, max_steps=3, max_epochs=-1)
    assert names(tmp_path / "d") == ["last.ckpt"]
    assert step_of(cb.last_model_path) == 3


def test_last_with_a_template(tmp_path):
    """A template in ``CHECKPOINT_NAME_LAST`` names each state, and only the newest file stays."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_top_k=0, save_last=True)
    cb.CHECKPOINT_NAME_LAST = "{epoch}-last"
    fit(tmp_path, cb, max_epochs=3)
    assert names(tmp_path / "d") == ["epoch=2-last.ckpt"]
    assert cb.last_model_path == str(tmp_path / "d" / "epoch=2-last.ckpt")


def test_last_never_takes_the_name_of_the_ranked_file(tmp_path):
    """``filename="last"`` together with ``save_last`` gives two files, not one that is two things."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", filename="last", monitor="val_loss", save_last=True)
    fit(tmp_path, cb, vals=[5, 6, 7], max_epochs=3)
    assert step_of(cb.best_model_path) == 2
    assert step_of(cb.last_model_path) == 6
    assert len(names(tmp_path / "d")) == 2


def test_a_foreign_last_is_not_written_over(tmp_path):
    """A ``last.ckpt`` of another run stays; ours becomes ``last-v1.ckpt``, as in 2.6."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "last.ckpt").write_bytes(b"of another run")
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_last=True, save_top_k=0)
    fit(tmp_path, cb, max_epochs=2)
    assert names(tmp_path / "d") == ["last-v1.ckpt", "last.ckpt"]
    assert (tmp_path / "d" / "last.ckpt").read_bytes() == b"of another run"


def test_last_on_a_remote_directory(tmp_path):
    """``save_last="link"`` works on a URL too, where a link is a copy on the remote side."""
    root = f"memory://{tmp_path.name}"
    cb = ModelCheckpoint(dirpath=root, monitor="val_loss", save_last="link")
    fit(tmp_path, cb, vals=[5, 6], max_epochs=2)
    with fsspec.open(f"{root}/last.ckpt") as file:
        assert torch.load(file)["global_step"] == 4


def test_resume_from_last_is_the_newest_whole_one(tmp_path):
    """``ckpt_path="last"`` takes the newest ``last`` by its manifest; one that is damaged is passed over."""
    for epochs in (1, 2):
        fit(tmp_path, ModelCheckpoint(dirpath=tmp_path / "d", save_last=True, save_top_k=0), max_epochs=epochs)
    assert names(tmp_path / "d") == ["last-v1.ckpt", "last.ckpt"]
    os.utime(tmp_path / "d" / "last.ckpt")
    assert _resumed_at(tmp_path, "last") == 4
    damaged = tmp_path / "d" / "last-v1.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="passed over"):
        assert _resumed_at(tmp_path, "last") == 2


def test_resume_from_last_finds_templates(tmp_path):
    """``ckpt_path="last"`` reads the manifest, not the name: any template is found."""
    cb = ModelCheckpoint(dirpath=tmp_path / "d", save_last=True, save_top_k=0)
    cb.CHECKPOINT_NAME_LAST = "run/{val_loss:.1f}-{epoch}-end"
    fit(tmp_path, cb, max_epochs=2)
    assert names(tmp_path / "d") == ["run/val_loss=4.0-epoch=1-end.ckpt"]
    again = ModelCheckpoint(dirpath=tmp_path / "d", save_last=True, save_top_k=0)
    again.CHECKPOINT_NAME_LAST = cb.CHECKPOINT_NAME_LAST
    assert _resumed_at(tmp_path, "last", again) == 4


def test_without_any_last_training_starts_afresh(tmp_path):
    """``ckpt_path="last"`` without such a file starts from the beginning, as in 2.6."""
    assert _resumed_at(tmp_path, "last") == 0


def test_last_knows_what_is_best(tmp_path):
    """Resuming from ``last`` restores the best file, its score and the name of ``last`` itself."""
    words = {"dirpath": tmp_path / "d", "monitor": "val_loss", "save_last": True}
    fit(tmp_path, ModelCheckpoint(**words), vals=[5, 6], max_epochs=2)
    cb = ModelCheckpoint(**words)
    fit(tmp_path, cb, vals=[7], max_epochs=3, ckpt_path="last")
    assert names(tmp_path / "d") == ["epoch=0-step=2.ckpt", "last.ckpt"]
    assert float(cb.best_model_score) == 5.0
    assert step_of(cb.best_model_path) == 2
    assert step_of(cb.last_model_path) == 6


class _Started(Exception):  # noqa: N818 - no error: training has begun, and that is enough
    pass


def _resumed_at(folder, ckpt_path, callback=None):
    """The step at which training begins; it ends there."""

    def stop(trainer):
        raise _Started(trainer.global_step)

    cb = callback or ModelCheckpoint(dirpath=folder / "d", save_last=True, save_top_k=0)
    with pytest.raises(_Started) as started:
        fit(folder, cb, Probe(on_train_start=stop), max_epochs=9, ckpt_path=ckpt_path)
    return started.value.args[0]
