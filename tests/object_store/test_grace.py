"""A signal leaves a run so many seconds: no server is waited for beyond them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from holdfast.storage import hurry
from holdfast.storage.remote.retrying import Patience, again
from tests.support.running import PYTHONPATH

TRAINING = """
import time, torch
from holdfast import Checkpointer
with Checkpointer("s3://bucket/run", model=torch.nn.Linear(2, 2), every_n_train_steps=1, grace_period=3) as ckpt:
    for step in range(100_000):
        ckpt.step()
        print("step", flush=True)
        time.sleep(0.02)
"""


def test_a_server_that_is_off_is_not_waited_for_beyond_a_grace_period(own_s3, tmp_path):
    """SIGTERM ends a run whose server is gone within the seconds that ``grace_period`` says, of a patience of 120."""
    env = {**os.environ, **own_s3.environment(), "PYTHONPATH": PYTHONPATH, "HOLDFAST_PATIENCE": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        try:
            for _ in range(3):
                assert run.stdout.readline()
            own_s3.kill()
            time.sleep(0.3)
            run.send_signal(signal.SIGTERM)
            _, told = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == -signal.SIGTERM
    assert b"was not saved" in told or b"not saved before the signal acts" in told


def test_a_try_that_is_under_way_when_the_time_ends_is_the_last():
    """What is tried again ends with its last error once the time is over that was set while it waited."""

    def busy():
        if not tries:
            hurry.end_waiting_by(time.monotonic() + 0.2)  # as the handler of a signal does
        tries.append(1)
        raise ConnectionError("busy")

    tries = []
    try:
        with pytest.raises(InterruptedError, match="busy"):
            again("look", busy, Patience(1000, lambda _: time.sleep(0.05)))
    finally:
        hurry.wait_again()
    assert len(tries) > 1
    assert not hurry.is_hurried()
