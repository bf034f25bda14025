"""The exam itself: it fails what breaks a promise, and is there for those who have only the package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.mutants import MUTANTS
from tests.support.running import PYTHONPATH

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def exam(folder, *arguments):
    """Run pytest on its own, as a user does, in an empty folder; return the lines of what came of each test."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-rA", "-p", "no:cacheprovider", "--tb=no", *arguments]
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) .*?::(\w+)::(\w+)", done.stdout, re.MULTILINE)


def test_each_broken_promise_is_found(tmp_path):
    """Every one of two dozen stores that break one promise fails the test of it; one that keeps it passes."""
    page = Path(__file__).parent / "mutants.py"
    names = [f"{page}::Test{kind.__name__}::{killer}" for kind, killer in MUTANTS.items()]
    sound = [f"{page}::TestLocalStore::{killer}" for killer in sorted(set(MUTANTS.values()))]
    came = exam(tmp_path, "--rootdir", str(tmp_path), *names, *sound)
    failed = {(kind, test) for how, kind, test in came if how == "FAILED"}
    assert failed == {(f"Test{kind.__name__}", killer) for kind, killer in MUTANTS.items()}
    passed = {test for how, kind, test in came if how == "PASSED" and kind == "TestLocalStore"}
    assert passed == set(MUTANTS.values())


def _page(tmp_path):
    text = (ROOT / "docs" / "stores.md").read_text()
    (tmp_path / "test_page.py").write_text("\n".join(BLOCK.findall(text)))
    return tmp_path


def test_the_store_of_the_page_passes(tmp_path):
    """The store that the documentation shows passes what a put, a read and a listing promise."""
    chosen = "TestRowStore and (gate or fails or depth or what_was_put or link or retired or hidden)"
    came = exam(_page(tmp_path), "-k", chosen)
    assert {how for how, _, _ in came} == {"PASSED"}
    assert len(came) > 30


@pytest.mark.long
def test_the_store_of_the_page_passes_all(tmp_path):
    """The store that the documentation shows, and a filesystem of fsspec's, pass the whole exam."""
    came = exam(_page(tmp_path))
    assert {how for how, _, _ in came} <= {"PASSED", "SKIPPED"}
    assert {kind for _, kind, _ in came} == {"TestRowStore", "TestMyFilesystem"}


WITHOUT = """
import sys
sys.modules["hypothesis"] = None
import holdfast.testing
try:
    holdfast.testing.StoreSuite
except ImportError as error:
    print(error)
"""


def test_an_exam_without_its_tools(tmp_path):
    """Where hypothesis or pytest is not installed, the error names the extra."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'holdfast[testing]'" in done.stdout
