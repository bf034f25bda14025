"""How the uploads of a run end: with a signal, with an exception, with Ctrl-C while they are waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import holdfast
from holdfast.errors import DirectoryInUseError
from holdfast.front import uploads
from holdfast.storage import open_store
from tests.front.loops import Loop
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


def _epochs(loop, ckpt, count):
    for epoch in range(count):
        for batch in loop.batches(epoch):
            loop.learn(batch)
            ckpt.step()
        ckpt.end_epoch()


@pytest.mark.filterwarnings("ignore:.*does not take.*:UserWarning")
def test_what_is_handed_over(tmp_path, memory, monkeypatch):
    """What retention has dropped meanwhile is not counted among what is not yet there, nor remembered for ever."""
    loop = Loop()

    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(uploads, "own_place", fail)
    monkeypatch.setattr("holdfast.mirroring.mirror.PAUSES", (0.01,))
    ckpt = loop.checkpointer(tmp_path / "run", mirror=memory, mirror_wait=0.1, save_top_k=1)
    _epochs(loop, ckpt, 6)
    ckpt.wait()
    failures = ckpt.mirror.status.failures
    while ckpt.mirror.status.failures < failures + 2:
        ckpt.mirror.wait(timeout=0.01)
    assert len(ckpt.mirror.status.queued) <= 2  # the newest, and one that stays for the mirror alone
    with pytest.warns(UserWarning, match="^1 checkpoint is not yet on the mirror"):
        ckpt.close()
    assert _names(tmp_path / "run") == ["epoch=5-step=24.ckpt"]


@pytest.mark.filterwarnings("ignore:.*does not take.*:UserWarning")
def test_another_run_has_the_mirror(tmp_path, memory, monkeypatch):
    """The end does not wait for minutes for a mirror that another run has: that may train for days."""
    loop = Loop()

    def refuse(store, **_):
        raise DirectoryInUseError(store.root, run="theirs")

    monkeypatch.setattr(uploads, "own_place", refuse)
    monkeypatch.setattr(uploads, "ENDING", 0.1)
    monkeypatch.setattr(uploads, "_STALLED", 1e9)
    ckpt = loop.checkpointer(tmp_path / "run", mirror=memory)
    _epochs(loop, ckpt, 1)
    with pytest.warns(UserWarning, match="not yet on the mirror.*belongs to another run theirs"):
        ckpt.close()
    assert _names(memory) == []
