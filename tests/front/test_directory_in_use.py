"""Two runs in one directory: the second is refused, and nothing of the first is touched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import holdfast
from holdfast import Checkpointer, DirectoryInUseError
from tests.front.loops import names
from tests.support.running import PYTHONPATH

HOLDER = """
import sys, torch
from holdfast import Checkpointer
with Checkpointer(sys.argv[1], model=torch.nn.Linear(1, 1), every_n_train_steps=1, async_save=False) as ckpt:
    ckpt.step()
    print("saved", flush=True)
    sys.stdin.readline()
    for _ in range(3):
        ckpt.step()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains into ``tmp_path``, one step done."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert process.stdout.readline() == "saved\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_before_anything_is_touched(tmp_path, holder):
    """In a plain loop and under Lightning; what can be read can be read; the first run goes on and ends as ever."""
    from holdfast.lightning import ModelCheckpoint
    from tests.support.lightning_cases import fit

    (tmp_path / ".holdfast-0.tmp").write_text("a sweep would take it")
    before = names(tmp_path)
    with pytest.raises(DirectoryInUseError, match=f"process {holder.pid} on host"):
        Checkpointer(tmp_path, model=torch.nn.Linear(1, 1))
    with pytest.raises(DirectoryInUseError, match=f"process {holder.pid} on host"):
        fit(tmp_path, ModelCheckpoint(tmp_path, save_on_exception=True))
    assert names(tmp_path) == before
    assert holdfast.newest(tmp_path) == str(tmp_path / "epoch=0-step=1.ckpt")
    os.unlink(tmp_path / ".holdfast-0.tmp")
    holder.communicate("\n")
    assert holder.returncode == 0
    assert names(tmp_path) == ["epoch=0-step=4.ckpt"]


def test_it_is_free_again_at_once_after_a_kill(tmp_path, holder):
    """The next run takes the directory over, resumes, and leaves no lock behind."""
    holder.kill()
    holder.wait()
    with Checkpointer(tmp_path, model=torch.nn.Linear(1, 1), every_n_train_steps=1) as ckpt:
        assert ckpt.resume().step == 1
        ckpt.step()
    assert ".holdfast-run.lock" not in os.listdir(tmp_path)


def test_an_exception_and_the_collector_give_it_up(tmp_path):
    """However a checkpointer ends, its lock is gone with it."""
    with pytest.raises(ValueError, match="over"), Checkpointer(tmp_path, model=torch.nn.Linear(1, 1)):
        raise ValueError("over")
    assert os.listdir(tmp_path) == []
    Checkpointer(tmp_path, model=torch.nn.Linear(1, 1))
    assert os.listdir(tmp_path) == []
