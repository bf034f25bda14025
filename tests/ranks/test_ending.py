"""Ranks as whole programs: one that ends while another waits for it says why, and both come to their ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "ending.py"


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "words"), [("uncaught", "MemoryError: no room on this GPU"), ("in order", "its program has ended")]
)
def test_a_program_that_ends_says_why(tmp_path, how, words):
    """An exception that nobody catches is told with its cause, an orderly end as such; neither process hangs."""
    command = [sys.executable, str(SCRIPT), how, str(tmp_path / "store")]
    running = [
        subprocess.Popen(
            command, env={**os.environ, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        (told, problem), (_, other) = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 1 if how == "uncaught" else 0], problem + other
    assert told.startswith("1 rank 1 failed while this one waited for it at step 100")
    assert words in told
