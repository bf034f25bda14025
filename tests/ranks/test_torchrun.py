"""The real ``torchrun``: what its agent does with a signal, and with ranks that end by one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.front.loops import step_of
from tests.support.running import PYTHONPATH, REPOSITORY

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).parent / "torchrun_loop.py"


@pytest.fixture
def torchrun(tmp_path):
    """Start a torchrun of two ranks on this test's folders; none outlives the test."""
    begun = []
    (tmp_path / "said").mkdir()

    def start(*words, steps=10**6):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
        command += [str(SCRIPT), str(tmp_path / "run"), str(tmp_path / "said"), str(steps)]
        # torch 2.13: ranks that are started again may find the addresses of those before in torchrun's own store.
        env = {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        env["GLOO_SOCKET_IFNAME"] = "lo"
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        begun.append(subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **env}, **pipe))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.terminate()  # it takes its ranks along
            try:
                process.communicate(timeout=60)
            finally:
                process.kill()


def started(said, step):
    """Wait until both ranks train; return their processes."""
    until = time.monotonic() + 60
    files = [said / f"{rank}.{step}" for rank in range(2)]
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < until
        time.sleep(0.02)
    return [int(file.read_text()) for file in files]


def saved(folder):
    """Return the steps of what is there."""
    return sorted(step_of(folder / name) for name in os.listdir(folder) if not name.startswith("."))


def both(said, step):
    """Tell whether both ranks have begun at this step."""
    return all((said / f"{rank}.{step}").exists() for rank in range(2))


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_agent(tmp_path, torchrun, by):
    """It hands the signal on to all: one save, all end by it before its patience is over, and the next run goes on."""
    said = tmp_path / "said"
    run = torchrun("--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1")
    pids = started(said, 0)
    run.send_signal(by)
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0, output.decode()
    assert "forcefully exiting" not in output.decode()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    (step,) = saved(tmp_path / "run")
    again = torchrun(steps=3)
    output, _ = again.communicate(timeout=90)
    assert again.returncode == 0, output.decode()
    assert both(said, step)


def test_a_signal_to_one_rank_restarts_all(tmp_path, torchrun):
    """SIGTERM to rank 1 alone: both save and end by it; to the agent that is a failure, and it begins anew."""
    said = tmp_path / "said"
    run = torchrun("--max-restarts", "1", "--monitor-interval", "0.1")
    _, second = started(said, 0)
    os.kill(second, signal.SIGTERM)
    until = time.monotonic() + 60
    while len(os.listdir(said)) < 4:
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    (step,) = saved(tmp_path / "run")
    assert both(said, step)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    first, second = saved(tmp_path / "run")  # the run keeps what it has resumed from
    assert first == step < second
