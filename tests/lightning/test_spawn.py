"""Two processes: the strategies that send callbacks through pickle."""

from __future__ import annotations

import json

import pytest

from tests.support.lightning_cases import names, run_script, step_of

SPAWN = """
import json, sys
import lightning.pytorch as pl
from holdfast.lightning import ModelCheckpoint
from tests.support.lightning_cases import Scripted, fit, trainer, loader
from tests.support.lightning_parts import Probe

folder, strategy = sys.argv[1:]

class Report(pl.Callback):
    def on_fit_end(self, trainer, pl_module):
        cb = trainer.checkpoint_callback
        told = {
            "best": cb.best_model_path, "last": cb.last_model_path, "kth": cb.kth_best_model_path,
            "scores": {path: float(score) for path, score in cb.best_k_models.items()}, "key": cb.state_key,
            "dirpath": cb.dirpath,
        }
        with open(f"{folder}/rank{trainer.global_rank}.json", "w") as file:
            json.dump(told, file)

class Noisy(Scripted):
    # The metric differs between the ranks, and is not synchronised.
    def validation_step(self, batch, batch_idx):
        value = float(self.vals[min(self.validations, len(self.vals) - 1)])
        self.log("val_loss", value + 10 * self.global_rank)

if __name__ == "__main__":
    cb = ModelCheckpoint(f"{folder}/d", monitor="val_loss", save_top_k=2, save_last=True)
    options = dict(strategy=strategy, devices=2, max_epochs=4)
    made = trainer(folder, cb, Report(), **options)
    made.fit(Noisy([5, 3, 4, 2]), loader(4), loader())
    print(json.dumps({"best": cb.best_model_path, "step": made.global_step}))
"""


@pytest.fixture(autouse=True)
def _way_of_saving():
    """As it is for users: the script runs in processes of its own."""


def _run(tmp_path, strategy):
    """Run the script in a fresh folder, and once more if torch's own threads have aborted a process at its exit."""
    for lap in range(3):
        folder = tmp_path / str(lap)
        folder.mkdir()
        done = run_script(SPAWN, folder, strategy)
        if "terminate called without an active exception" not in done.stderr:
            break
    return folder, done


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_two_processes(strategy, tmp_path):
    """Two ranks write each file once, agree on every attribute, and the parent process is told the best."""
    folder, done = _run(tmp_path, strategy)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert names(folder / "d") == ["epoch=1-step=4.ckpt", "epoch=3-step=8.ckpt", "last.ckpt"]
    assert {step_of(path): score for path, score in first["scores"].items()} == {4: 3.0, 8: 2.0}
    assert (step_of(first["best"]), step_of(first["last"]), step_of(first["kth"])) == (8, 8, 4)
    assert json.loads(done.stdout.splitlines()[-1])["best"] == first["best"]
