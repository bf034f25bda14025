"""Trainings to a real object store that are killed, with its server, at random requests: nothing committed is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.crash import counts
from tests.crash.object_store_books import Books, expected
from tests.crash.object_store_lives import Life, Plan
from tests.support.properties import chance
from tests.support.running import PYTHONPATH, REPOSITORY
from tests.support.s3 import why_not

LIMIT = 3600  # seconds for hundreds of laps


def _laps(number, *words):
    """Run laps in a process that has no threads; every problem is told with the seed of its run."""
    seed = chance(f"laps {number} {words}").getrandbits(32)
    command = [sys.executable, "-m", "tests.crash.object_store_laps", "--laps", str(number), "--seed", str(seed)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    environment.pop("HOLDFAST_CACHE", None)  # what is kept of listings is killed as well
    options = {"cwd": REPOSITORY, "env": environment, "capture_output": True, "text": True, "timeout": LIMIT}
    done = subprocess.run([*command, *words], check=False, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    counts.count("lives of trainings to an S3 server, killed with it", int(re.search(r"(\d+) laps", done.stdout)[1]))


@pytest.mark.long  # 5 s of a processor, most of it imports
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_lap():
    """A training to a bucket that is killed at a request goes on, ends bit-identical, and leaves nothing behind."""
    _laps(1, "--home", "bucket", "--size", "one put")


@pytest.mark.long
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_laps():
    """So do hundreds, to a bucket and with a mirror, in one put and in parts, with the server killed as well."""
    _laps(200)


@pytest.mark.long
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_demo():
    """``make demo-s3`` shows what it says: training and server killed in mid-upload, nothing committed is lost."""
    command = [sys.executable, os.path.join(REPOSITORY, "examples", "demo_s3.py")]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    environment.pop("HOLDFAST_PATIENCE", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("those of the training that nothing happened to") == 2
    assert done.stdout.count("SIGKILL") == 2


def _told(*said, plan=None):
    return Life(plan or Plan(), said=list(said))


def _found(steps, **more):
    return {"problems": [], "there": {"all": steps, "ranked": steps}, "gone": False, "over": False, **more}


def test_a_loss_is_found():
    """An acknowledged step that is not there any more is a problem, and so are weights that differ."""
    expected(64, 0)
    books = Books(64)
    books.enter(_told({"step": 2, "digest": expected(64, 2)}, {"acknowledged": 2}))
    books.judge(_found([2]))
    assert books.problems == []
    books.enter(_told({"resumed": 0}, {"step": 3, "digest": "other"}))
    books.judge(_found([]))
    assert [problem.partition(" ")[0] for problem in books.problems] == ["the", "resumed", "step", "of"]


def test_a_loss_on_the_mirror_is_found():
    """What was said to be on the mirror has to be there, whatever the folder has; a hang and a traceback are told."""
    books = Books(64)
    books.enter(_told({"acknowledged": 2}, {"mirrored": 2}))
    books.judge(_found([], here={"all": [2], "ranked": [2]}))
    hung = _told({"raised": "Traceback"})
    hung.code = None
    books.enter(hung)
    assert [problem.partition(" ")[0] for problem in books.problems] == ["the", "ended", "hung"]
