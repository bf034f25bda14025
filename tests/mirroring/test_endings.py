"""How the uploads of a run end: with a signal, with an exception, with Ctrl-C while they are waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import holdfast
from holdfast.storage import open_store
from tests.support.running import PYTHONPATH

_TRAINEE = """
import sys, time, torch
from tests.front.loops import Loop
folder, mirror, rate, what = sys.argv[1:]
loop = Loop()
loop.model.register_buffer("ballast", torch.rand(2_000_000))
ckpt = loop.checkpointer(folder, mirror=mirror, mirror_bandwidth=float(rate), every_n_train_steps=1000)
with ckpt:
    ckpt.resume()
    for step in range(1000):
        loop.learn(loop.batches(0)[0])
        ckpt.step()
        if step == 1:
            print("begun", flush=True)
        if what == "close" and step == 2:
            ckpt.save_checkpoint()
            print("saved", flush=True)
            break
        time.sleep(0.05)
"""


def _start(tmp_path, rate, what):
    command = [sys.executable, "-c", _TRAINEE, str(tmp_path / "run"), str(tmp_path / "mirror"), str(rate), what]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    made = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert made.stdout.readline() == "begun\n"
    return made


def _names(place):
    return [blob.name for blob in open_store(place).blobs()]


@pytest.mark.long
def test_a_signal_that_ends_the_process(tmp_path):
    """SIGTERM saves, has the save uploaded, and only then ends the process."""
    made = _start(tmp_path, 8e6, "train")  # a second for its 8 MB
    made.send_signal(signal.SIGTERM)
    made.communicate(timeout=60)
    assert made.returncode == -signal.SIGTERM
    assert _names(tmp_path / "mirror") == _names(tmp_path / "run")
    assert len(_names(tmp_path / "run")) == 1
    assert all(item.problem == "" for item in holdfast.verify_all(tmp_path / "mirror"))


@pytest.mark.long
def test_ctrl_c_while_the_uploads_are_waited_for(tmp_path):
    """Ctrl-C hands over what is left, with the command that carries on; what is here is whole."""
    made = _start(tmp_path, 2e5, "close")  # forty seconds for its 8 MB
    assert made.stdout.readline() == "saved\n"
    made.send_signal(signal.SIGINT)
    _, told = made.communicate(timeout=60)
    assert made.returncode != 0
    assert f"holdfast sync {tmp_path / 'run'} {tmp_path / 'mirror'}" in told
    assert _names(tmp_path / "mirror") == []
    assert len(_names(tmp_path / "run")) == 1
    assert all(item.problem == "" for item in holdfast.verify_all(tmp_path / "run"))
