"""Damaged checkpoints under the Trainer: ``ckpt_path="last"`` goes behind them, and they are set aside."""

from __future__ import annotations

import os
import secrets

import pytest

from holdfast import DamagedCheckpointError, load
from holdfast.storage import open_store
from tests.support.files import content, put
from tests.support.lightning_cases import ModelCheckpoint, fit, names, quietly, step_of
from tests.support.lightning_parts import Probe


def flip(path):
    data = bytearray(content(path))
    data[len(data) // 2] ^= 1
    put(path, bytes(data))


def callback(folder, **words):
    return ModelCheckpoint(folder, monitor="val_loss", save_top_k=2, save_last=True, **words)


@pytest.fixture
def folder(tmp_path):
    """A run of three epochs whose newest, its best, is damaged; ``last`` is another name of it."""
    fit(tmp_path, callback(tmp_path / "d"), vals=[4, 5, 3], max_epochs=3)
    flip(tmp_path / "d" / "epoch=2-step=6.ckpt")
    return tmp_path / "d"


def test_a_damaged_last_is_set_aside(tmp_path, folder):
    """The newest whole one is resumed, ranking and last do without the damaged ones, and nothing is deleted."""
    cb, seen = callback(folder), []

    def look(trainer):
        seen.append((trainer.global_step, cb.best_model_path, cb.last_model_path, float(cb.best_model_score)))

    _, said = quietly(fit, tmp_path, cb, Probe(on_train_epoch_start=look), vals=[6, 7], max_epochs=4, ckpt_path="last")
    assert seen[0] == (2, str(folder / "epoch=0-step=2.ckpt"), "", 4.0)
    aside = ["epoch=2-step=6.ckpt.damaged", "last.ckpt.damaged"]
    assert [name for name in names(folder) if "damaged" in name] == aside
    warned = [text for text in said if "passed over" in text]
    for name in aside:
        (text,) = [text for text in warned if f"set aside as {folder / name}" in text]
        assert f"{folder / name.removesuffix('.damaged')} is damaged" in text
    assert step_of(folder / "last.ckpt") == 8
    assert cb.last_model_path == str(folder / "last.ckpt")
    assert len(cb.best_k_models) == 2


def test_behind_a_url_it_is_set_aside_as_the_fit_begins(tmp_path):
    """Found before the prefix is the run's, a damaged ``last`` waits for that; then its name is free again."""
    url = f"memory://{secrets.token_hex(4)}/run"
    store = open_store(url)
    words = {"monitor": None, "save_top_k": -1, "save_last": True}
    fit(tmp_path, ModelCheckpoint(url, **words), max_epochs=2)
    data = bytearray(store.read("last.ckpt", 0, 1 << 20))
    data[len(data) // 2] ^= 1
    store.put("last.ckpt", [bytes(data)])
    made, said = quietly(fit, tmp_path, ModelCheckpoint(url, **words), max_epochs=3, ckpt_path="last")
    assert made.ckpt_path == f"{url}/epoch=1-step=4.ckpt"
    assert len([text for text in said if f"set aside as {url}/last.ckpt.damaged" in text]) == 1
    assert store.read("last.ckpt.damaged", 0, 1 << 20) == data
    assert load(f"{url}/last.ckpt")["global_step"] == 6


def test_a_kill_right_after_the_setting_aside(tmp_path, folder):
    """If there is no ``last`` any more because it was set aside, "last" is the newest whole one of any kind."""
    for name in ("epoch=2-step=6.ckpt", "last.ckpt"):
        os.rename(folder / name, folder / f"{name}.damaged")
    before = names(folder)
    made = fit(tmp_path, callback(folder), vals=[6, 7], max_epochs=2, ckpt_path="last")
    assert made.ckpt_path == str(folder / "epoch=0-step=2.ckpt")
    assert made.global_step == 4
    assert set(before) - set(names(folder)) <= {"epoch=1-step=4.ckpt"}


def test_torn_files_are_set_aside_when_a_run_goes_on(tmp_path, folder):
    """Going on from a file of the directory sets aside what is torn there; it is not ranked."""
    put(folder / "epoch=2-step=6.ckpt", b"")
    put(folder / "last.ckpt", content(folder / "last.ckpt")[:-500])
    cb = callback(folder)
    _, said = quietly(fit, tmp_path, cb, vals=[6], max_epochs=2, ckpt_path=str(folder / "epoch=0-step=2.ckpt"))
    assert len([text for text in said if "set aside as" in text]) == 2
    assert {"epoch=2-step=6.ckpt.damaged", "last.ckpt.damaged"} <= set(names(folder))
    assert step_of(folder / "last.ckpt") == 4


def test_a_fit_that_resumes_nothing_moves_nothing(tmp_path, folder):
    """A fresh fit in a directory leaves every file of it alone."""
    put(folder / "torn.ckpt", b"")
    fit(tmp_path, callback(folder), vals=[6], max_epochs=1)
    assert not [name for name in names(folder) if "damaged" in name]


def test_stopping_at_damage(tmp_path, folder):
    """``on_damage="raise"``: the damaged ``last`` stops the fit, and every file stays as it was."""
    before = {name: content(folder / name) for name in names(folder)}
    with pytest.raises(DamagedCheckpointError, match=r"\.ckpt is damaged"):
        fit(tmp_path, callback(folder, on_damage="raise"), vals=[6], max_epochs=4, ckpt_path="last")
    assert {name: content(folder / name) for name in names(folder)} == before
