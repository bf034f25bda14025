"""Killing real processes at chosen moments, and what must hold afterwards."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import holdfast
from holdfast.front.opening import checkpoints
from holdfast.storage import RUN_LOCK
from tests.crash.training import FAILED
from tests.support.running import PYTHONPATH, REPOSITORY

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,ftruncate,fallocate,copy_file_range,sendfile,ioctl,"
    "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,flock"
)
DEPTH = 3


@dataclass
class Outcome:
    """How a run ended: its exit code (minus the signal's number), and what it had acknowledged."""

    code: int
    acks: list = field(default_factory=list)

    @property
    def resumed(self):
        return self.acks[0]["resumed"] if self.acks else None

    @property
    def error(self):
        return next((ack for ack in self.acks if "error" in ack), None)

    @property
    def digest(self):
        return self.acks[-1].get("digest") if self.acks else None


class Trainer:
    """Starts trainings as children of one process that has torch loaded."""

    def __init__(self, folder, *options):
        self.acks = os.path.join(folder, "acks")
        command = [sys.executable, "-m", "tests.crash.training", *options]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        self.digests = json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.communicate()

    def _say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def run(self, folder, words, *, kill_after=None, by=signal.SIGKILL, inject=None, trace=None, **order):
        """Train, and get a signal after some seconds, or have strace do something at a system call."""
        if os.path.exists(self.acks):
            os.unlink(self.acks)
        self._say(json.dumps({"folder": str(folder), "words": words, "acks": self.acks, **order}))
        child = int(self.process.stdout.readline())
        if "hold" in order:
            _wait_until(lambda: any("held" in ack for ack in _read_acks(self.acks)))
        tracer = _attach(child, inject, trace) if inject or trace else None
        self._say("go")
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, by)
        self._say("reap")
        code = int(self.process.stdout.readline())
        if tracer is not None:
            tracer.wait(timeout=30)
        return Outcome(code, _read_acks(self.acks))

    def reach(self, folder, words, *, inject):
        """Run in fresh folders until the call is reached: a call's number can differ by a few from run to run."""
        for lap in range(5):
            place = f"{folder}-{lap}"
            outcome = self.run(place, words, inject=inject)
            if outcome.code != 0:
                break
        return place, outcome


def _environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}


def _wait_until(told):
    deadline = time.monotonic() + 30
    while not told():
        if time.monotonic() > deadline:
            message = "the training never came to where it was to be held"
            raise RuntimeError(message)
        time.sleep(0.002)


def _read_acks(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file]


def _attach(child, inject, trace):
    """Attach strace to a process that waits, and return once it watches."""
    command = ["strace", "-f", "-qq", "-y", "-s", "0", "-p", str(child), "-o", trace or os.devnull]
    calls = inject.partition(":")[0] if inject else CALLS
    command += ["-e", f"trace={calls}", *(["-e", f"inject={inject}"] if inject else [])]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while _tracer_of(child) != tracer.pid:
        if tracer.poll() is not None or time.monotonic() > deadline:
            message = "strace could not attach"
            raise RuntimeError(message)
        time.sleep(0.002)
    return tracer


def _tracer_of(child):
    with open(f"/proc/{child}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("TracerPid"))


def can_trace():
    """Tell whether there is an strace that may attach to a process of ours."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as probe:
        try:
            tracer = _attach(probe.pid, None, None)
        except (RuntimeError, OSError):
            return False
        finally:
            probe.kill()
        tracer.wait()
    return True


def calls_on(trace, folder):
    """The calls that touched a folder, each with its number among all calls of its name: what strace counts."""
    counts = collections.Counter()
    found = []
    with open(trace) as file:
        for line in file:
            match = re.match(r"\d+\s+(\w+)\(", line)
            if match is None:
                continue
            counts[match.group(1)] += 1
            if f"{folder}" in line:
                found.append((match.group(1), counts[match.group(1)]))
    return found


def contents(folder):
    """What is in a folder: each file's digest, temporaries left out."""
    found = {}
    for where, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(where, name)
            if not name.startswith(".holdfast-"):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, folder)] = hashlib.sha256(file.read()).hexdigest()
    return found


def leftovers(folder):
    """The temporaries in a folder; the lock of a run that was killed holds nothing, and is taken over."""
    found = [name for _, _, files in os.walk(folder) for name in files]
    return [name for name in found if name.startswith(".holdfast-") and name != RUN_LOCK]


def steps(folder):
    """The step of every checkpoint in a folder, by its name."""
    return {found.name: found.facts.step for found in checkpoints(folder, depth=DEPTH)}


def assert_sound(folder, outcome, before, rest=1):
    """What must hold after any crash, with at most that many unfinished files left: see the assertions."""
    found = checkpoints(folder, depth=DEPTH)
    for item in found:
        assert not item.problem, f"{item.name} is listed and damaged: {item.problem}"
        assert holdfast.verify(item.path).facts == item.facts
        assert holdfast.load(item.path)["global_step"] == item.facts.step
    names = {item.name for item in found}
    assert set(contents(folder)) == names, "there is a file that is no checkpoint and no temporary"
    unfinished = [name for name in leftovers(folder) if name != RUN_LOCK]  # which the next run takes over
    assert len(unfinished) <= rest, f"more is left than what was unfinished: {unfinished}"
    by_name = {item.name: item.facts for item in found}
    for ack in outcome.acks:
        assert "digest" not in ack or outcome.code <= 0  # it may be killed after its last word
    told = next((ack for ack in reversed(outcome.acks) if "step" in ack), {})
    newest = max((facts.sequence for facts in by_name.values()), default=0)
    for role, name in ((role, told.get(role)) for role in ("best", "last")):
        if name is not None and name not in by_name:
            assert newest > before.get("sequence", 0), f"the acknowledged {role} {name} is gone with nothing newer"
    for name, (step, digest) in before.get("files", {}).items():
        if name in by_name and by_name[name].step == step:
            assert contents(folder)[name] == digest, f"{name}, committed before, was changed"
    if before.get("files"):
        assert max(facts.step for facts in by_name.values()) >= max(step for step, _ in before["files"].values())


def assert_acknowledged(folder, outcome):
    """What the checkpointer said was there is there, or something newer or better has taken its place."""
    found = {item.name: item.facts for item in checkpoints(folder, depth=DEPTH)}
    told = next((ack for ack in reversed(outcome.acks) if "step" in ack), {})
    assert told.get("last") is None or told["last"] in found
    if told.get("best") is not None and told["best"] not in found:
        assert min(facts.metrics["loss"] for facts in found.values()) < told["score"]


def survey(folder):
    """What a folder holds before something happens to it."""
    digests, found = contents(folder), checkpoints(folder, depth=DEPTH)
    files = {item.name: (item.facts.step, digests[item.name]) for item in found}
    return {"files": files, "sequence": max((item.facts.sequence for item in found), default=0)}


__all__ = [
    "FAILED",
    "Outcome",
    "Trainer",
    "assert_acknowledged",
    "assert_sound",
    "calls_on",
    "can_trace",
    "contents",
    "leftovers",
    "steps",
    "survey",
]
