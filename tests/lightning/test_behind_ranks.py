"""Saves behind the training's back in two processes: the same answers on both, and nobody hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.lightning_cases import names, run_script, step_of
from tests.support.running import PYTHONPATH


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users."""


SPAWN = """
import json, sys, time
import lightning.pytorch as pl
from holdfast.lightning import ModelCheckpoint
from holdfast.storage.local import LocalStore
from tests.support.lightning_cases import Scripted, fit, trainer, loader

folder, words, crash, full = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "crash", sys.argv[3] == "full"
put = LocalStore.put

def slow(store, name, chunks, **words):
    time.sleep(0.1)
    if full and "step=8" in name:
        raise OSError(28, "No space left on device")
    return put(store, name, chunks, **words)

class Report(pl.Callback):
    def told(self, trainer, **more):
        cb = trainer.checkpoint_callback
        told = {
            "best": cb.best_model_path, "last": cb.last_model_path, "kth": cb.kth_best_model_path,
            "scores": {path: float(score) for path, score in cb.best_k_models.items()}, **more,
        }
        with open(f"{folder}/rank{trainer.global_rank}.json", "w") as file:
            json.dump(told, file)

    def setup(self, trainer, pl_module, stage):
        LocalStore.put = slow

    def on_train_batch_start(self, trainer, *_):
        if crash and trainer.global_step == 5:
            raise ValueError("scripted")

    def on_fit_end(self, trainer, pl_module):
        self.told(trainer)

    def on_exception(self, trainer, pl_module, exception):
        self.told(trainer, error=type(exception).__name__)
        time.sleep(1)  # the first process that fails has the other killed

class Noisy(Scripted):
    def validation_step(self, batch, batch_idx):
        value = float(self.vals[min(self.validations, len(self.vals) - 1)])
        self.log("val_loss", value + 10 * self.global_rank)

if __name__ == "__main__":
    cb = ModelCheckpoint(f"{folder}/d", monitor="val_loss", save_top_k=2, save_last=True, **words)
    made = trainer(folder, cb, Report(), strategy=sys.argv[4], devices=2, max_epochs=4)
    made.fit(Noisy([5, 3, 4, 2]), loader(4), loader())
    print(json.dumps({"best": cb.best_model_path}))
"""


def run(tmp_path, words):
    """Run in a fresh folder; once more if torch's own threads have aborted a process at its exit."""
    for lap in range(3):
        folder = tmp_path / str(lap)
        folder.mkdir()
        done = run_script(SPAWN, folder, json.dumps(words), "whole", "ddp_fork", timeout=120)
        if "terminate called without an active exception" not in done.stderr:
            break
    return folder, done, answers(folder)


def launch(folder, words, how):
    """Run under ``torchrun``, where each process is told of its own exception."""
    script = folder / "script.py"
    script.write_text(SPAWN)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", str(script), str(folder), json.dumps(words), how, "ddp"]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode != 0
    return answers(folder)


def answers(folder):
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


SKIPPING = pytest.param({"on_busy": "skip"}, marks=pytest.mark.long)


@pytest.mark.parametrize("words", [{}, {"images": 2, "overlap": True}, SKIPPING], ids=str)
def test_both_ranks_know_the_same(tmp_path, words):
    """With a slow disk, each rank ends with the same attributes, which name what is there, and so does the parent."""
    folder, done, (first, second) = run(tmp_path, words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert first == second
    there = names(folder / "d")
    assert {name for name in there if name != "last.ckpt"} == {path.rsplit("/", 1)[1] for path in first["scores"]}
    assert step_of(first["last"]) == 8
    assert json.loads(done.stdout.splitlines()[-1])["best"] == first["best"]
    if "on_busy" not in words:
        assert {step_of(path): score for path, score in first["scores"].items()} == {4: 3.0, 8: 2.0}


def test_a_failure_behind_the_back_ends_both_ranks(tmp_path):
    """A save that fails on rank 0 is an error of both, and what was committed before is whole."""
    first, second = launch(tmp_path, {"on_error": "raise"}, "full")
    assert first["error"] == second["error"] == "SaveError"
    assert "epoch=1-step=4.ckpt" in names(tmp_path / "d")
    assert step_of(first["best"]) == step_of(second["best"]) == 4


@pytest.mark.long
def test_an_exception_leaves_what_was_on_its_way(tmp_path):
    """An exception on both ranks amid a save: it is committed, and neither hangs."""
    told = launch(tmp_path, {}, "crash")
    assert [item["error"] for item in told] == ["ValueError", "ValueError"]
    assert "epoch=1-step=4.ckpt" in names(tmp_path / "d")
