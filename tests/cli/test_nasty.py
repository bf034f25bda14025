"""A directory in which everything is wrong that can be: no verb that takes one answers with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.files import content, put, save, small_state, torch_bytes
from tests.support.running import PYTHONPATH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")

POLICY = {"monitor": "val_loss", "mode": "min", "save_top_k": 1}
LISTED = {
    "good.ckpt", "best.ckpt", "stock.ckpt", "old.ckpt", "last.ckpt", "torn.ckpt", "empty.ckpt", "zeros.ckpt",
    "loop.ckpt", "dangling.ckpt", "pipe.ckpt", "secret.ckpt", "closed",
}  # fmt: skip

# Even root may then not read what it has forbidden itself: all capabilities are given up (linux/capability.h).
CODE = """
import ctypes, sys
head, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(head, data) == 0
from holdfast.cli import main
for path in sys.argv[2:]:
    code = main([*sys.argv[1].split(), path])
    print(f"{path} ended with {code}", file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two checkpoints of a run, stock and old torch files, torn ones, links, a pipe, what may not be read, garbage."""
    made = tmp_path_factory.mktemp("nasty")
    for sequence, (name, score) in enumerate((("best.ckpt", 0.25), ("good.ckpt", 0.5))):
        save(made / name, names={"ranked": name}, sequence=sequence, metrics={"val_loss": score}, policy=POLICY)
    put(made / "stock.ckpt", torch_bytes(small_state() | {"pytorch-lightning_version": "2.6.6"}))
    put(made / "old.ckpt", torch_bytes(small_state(), _use_new_zipfile_serialization=False))
    put(made / "last.ckpt", b"garbage\x1b[2J" * 50)
    put(made / "torn.ckpt", content(made / "good.ckpt")[:-700])
    put(made / "empty.ckpt", b"")
    put(made / "zeros.ckpt", bytes(5000))
    put(made / "gone.ckpt.damaged", b"set aside")
    put(made / ".holdfast-0123456789abcdef.tmp", b"left over")
    os.symlink("loop.ckpt", made / "loop.ckpt")
    os.symlink("nothing", made / "dangling.ckpt")
    os.symlink("..", made / "up")
    os.mkfifo(made / "pipe.ckpt")
    put(made / "secret.ckpt", content(made / "good.ckpt"))
    os.chmod(made / "secret.ckpt", 0)
    (made / "closed").mkdir()
    put(made / "closed" / "x.ckpt", content(made / "good.ckpt"))
    os.chmod(made / "closed", 0)
    yield made
    os.chmod(made / "closed", 0o700)


def ask(arguments, *paths):
    """Run the command on each of these paths, as one who may not read everything."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, arguments, *map(str, paths)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": PYTHONPATH}, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    return done


def test_ls(folder):
    """``ls`` lists each with what is wrong with it, and ends with 1."""
    done = ask("ls --json", folder)
    looks = {item["name"]: item for item in json.loads(done.stdout)}
    assert set(looks) == LISTED
    assert done.returncode == 1
    whole = {name for name, item in looks.items() if not item["problem"]}
    assert whole == {"good.ckpt", "best.ckpt", "stock.ckpt", "old.ckpt", "last.ckpt"}
    assert ask("ls", folder).stdout.count("no manifest") == 3


def test_verify(folder):
    """``verify`` tells the whole, the damaged and what cannot be judged apart, and waits for no pipe."""
    done = ask("verify --json", folder)
    assert done.returncode == 1
    results = {os.path.relpath(item["path"], folder): item for item in json.loads(done.stdout)}
    assert {name for name, item in results.items() if item["whole"]} == {"good.ckpt", "best.ckpt", "stock.ckpt"}
    damaged = {name for name, item in results.items() if item["whole"] is False}
    assert damaged == {
        "last.ckpt", "torn.ckpt", "empty.ckpt", "zeros.ckpt", "gone.ckpt.damaged", ".holdfast-0123456789abcdef.tmp",
    }  # fmt: skip
    assert results["gone.ckpt.damaged"]["set_aside"]
    assert results[".holdfast-0123456789abcdef.tmp"]["leftover"]
    assert all(item["problem"] for item in results.values() if item["whole"] is None)


@pytest.mark.parametrize(("verb", "name"), [("best", "best.ckpt"), ("last", "good.ckpt")])
def test_best_and_last(folder, verb, name):
    """``best`` and ``last`` print a checkpoint that has a manifest: no garbage that is called ``last.ckpt``."""
    done = ask(verb, folder)
    assert (done.returncode, done.stdout) == (0, f"{folder / name}\n")


def test_prune(folder):
    """``prune`` would remove nothing of it but what the rules drop of the run's own."""
    done = ask("prune --json --keep []", folder)
    assert done.returncode == 0
    assert {item["name"] for item in json.loads(done.stdout)} == LISTED
    assert all(item["keep"] for item in json.loads(done.stdout))


@pytest.mark.parametrize("verb", ["show", "verify --json", "pin", "ls"])
def test_each_by_itself(folder, verb):
    """Asked about each by itself, every answer is an answer: a code of its own, no traceback, no waiting."""
    paths = [folder / name for name in sorted(LISTED)]
    done = ask(verb, *paths)
    ended = [int(line.rpartition(" ")[2]) for line in done.stderr.splitlines() if " ended with " in line]
    assert len(ended) == len(paths)
    assert set(ended) <= {0, 1, 2, 3}
