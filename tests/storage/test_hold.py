"""Files that are held: by several who agree, or by one alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.storage import open_store

HOLDER = """
import sys
from holdfast.storage import open_store
with open_store(sys.argv[1]).hold("x.ckpt", alone=sys.argv[2] == "alone") as there:
    print(there, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(("theirs", "alone"), [("alone", False), ("alone", True), ("together", True)])
def test_one_alone_excludes_others(tmp_path, theirs, alone):
    """While another process holds a file alone, or with others, nobody holds it otherwise; its death lets it go."""
    store = open_store(tmp_path)
    store.put("x.ckpt", [b"bytes"])
    os.link(tmp_path / "x.ckpt", tmp_path / "second.ckpt")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), theirs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        with store.hold("second.ckpt", alone=alone) as held:
            assert not held
        other.kill()
        other.wait()
        with store.hold("x.ckpt", alone=alone) as held:
            assert held


def test_what_waited_for_a_file_that_was_replaced(tmp_path, monkeypatch):
    """Whoever gets the lock of a file that has lost its name meanwhile does not hold what has the name now."""
    store = open_store(tmp_path)
    store.put("x.ckpt", [b"old"])
    real = os.open

    def replaced(path, *rest):
        descriptor = real(path, *rest)
        if str(path).endswith("x.ckpt"):
            monkeypatch.undo()
            store.put("x.ckpt", [b"new"])
        return descriptor

    monkeypatch.setattr(os, "open", replaced)
    with store.hold("x.ckpt") as held:
        assert not held


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: os.symlink("nowhere", path), os.mkdir], ids=["pipe", "link", "folder"]
)
def test_what_is_no_file_can_be_held_too(tmp_path, make):
    """A pipe, a dangling link or a folder of the name is there: holding it neither waits nor fails."""
    make(tmp_path / "x.ckpt")
    with open_store(tmp_path).hold("x.ckpt", alone=True) as held:
        assert held
