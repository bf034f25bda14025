"""The example for ``torchrun``: killed, and resumed on another number of ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from holdfast import catalog
from tests.support.running import REPOSITORY

EXAMPLE = os.path.join(REPOSITORY, "examples", "fsdp2.py")
PAGE = os.path.join(REPOSITORY, "docs", "how-to", "torchrun.md")


def start(folder, size):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", EXAMPLE]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def test_the_page_shows_the_example():
    """The code in the how-to is the script in ``examples``, to the letter."""
    with open(EXAMPLE) as script, open(PAGE) as page:
        assert script.read() in page.read()


@pytest.mark.long
def test_killed_and_resumed_on_three_ranks(tmp_path):
    """All processes of two ranks are killed after some saves; three ranks go on from the newest, to the end."""
    first = start(tmp_path, 2)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/fsdp2/*step=20.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with open(f"/proc/{first.pid}/task/{first.pid}/children") as file:
        ranks = [int(pid) for pid in file.read().split()]
    assert len(ranks) == 2
    for pid in (first.pid, *ranks):  # each rank has a process group of its own
        os.kill(pid, signal.SIGKILL)
    first.communicate()
    steps = [item.step for item in catalog(tmp_path / "runs" / "fsdp2")]
    assert 20 <= max(steps) < 100
    second = start(tmp_path, 3)
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0
    assert f"training begins at step {max(steps)}" in said
    assert "trained 100 steps" in said
