"""Several ranks of one training as real processes, each in some ten milliseconds.

A process that has imported torch and holdfast once (the zygote, one for each pytest worker, started when it is first
needed) forks them. Each joins a gloo group, calls the job, and hands its value back::

    def job(folder):  # in tests/ranks/jobs_x.py, or beside the test itself
        ...
        return digest(model)

    assert len(set(run_ranks(2, job, folder))) == 1

    with start_ranks(3, "tests.ranks.jobs_x:job", folder) as run:
        run.heard(1, "saving")  # rank 1 has called tell("saving")
        run.kill(1)
        outcomes = run.wait(timeout=20)  # one Outcome a rank: value, error, traceback, signal, output
"""

from __future__ import annotations

import atexit
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from tests.support.running import PYTHONPATH, REPOSITORY

PATIENCE = 5.0  # seconds that a rank gets to show where it hangs, or to end, before it is killed
OUTPUT = 6000  # characters of what a rank printed last that an error shows
PAUSE = 0.002
START = 300  # seconds in which the zygote has to have imported torch, on a machine that is very busy


@dataclass
class Outcome:
    """How one rank ended.

    Attributes:
        rank: which.
        value: what the job returned there; None if it did not come to its end.
        error: what the job raised, as it was raised where it can be pickled, else as a RuntimeError of its text.
        traceback: the text of that.
        signal: the number of the signal that ended the process; 0 if none did.
        code: the exit code; -1 with a signal.
        late: whether it was ended because its time was over.
        output: what it printed.
        seconds: from its start until it ended.

    """

    rank: int
    value: Any = None
    error: BaseException | None = None
    traceback: str = ""
    signal: int = 0
    code: int = 0
    late: bool = False
    output: str = ""
    seconds: float = 0.0

    @property
    def ok(self):
        return self.code == 0 and self.error is None and not self.late

    def __str__(self):
        how = f"raised\n{self.traceback}" if self.traceback else f"ended with {self.code}"
        if self.signal:
            how = f"was ended by {signal.Signals(self.signal).name}"
        if self.late:
            how = "still ran when its time was over: its stacks are in what it printed"
        return f"rank {self.rank} {how if not self.ok else 'ended well'}\n{self.output[-OUTPUT:]}".rstrip()


class RankFailed(AssertionError):  # noqa: N818 - what has happened, not what is wrong
    """A rank raised, was killed, or did not end in time; ``outcomes`` says of each rank how it ended."""

    def __init__(self, outcomes):
        super().__init__("\n---\n".join(str(outcome) for outcome in outcomes if not outcome.ok))
        self.outcomes = outcomes


def run_ranks(size, job, *args, timeout=60, **options):
    """Run a job on some ranks, and return what it returned on each; see :func:`start_ranks` for the options.

    Raises:
        RankFailed: if it raised on any, any was killed, or any still ran after ``timeout`` seconds.

    """
    with start_ranks(size, job, *args, **options) as run:
        return run.results(timeout)


def start_ranks(size, job, *args, env=None, store="file", cwd=None, group_timeout=1800):
    """Start a job on some ranks, and return the handle to them. Use it in a ``with``: it leaves no process behind.

    Args:
        size: how many ranks.
        job: a function of a module, or ``"module:function"``. The zygote imports its module, once.
        args: what it is called with on every rank: anything that can be pickled.
        env: variables of the environment, on top of this process's own; a callable is given the rank.
            RANK, WORLD_SIZE, LOCAL_RANK and their like are set as torchrun sets them.
        store: how the ranks find each other: "file" (outlives every rank, as the store of torchrun's agent does),
            "tcp" (lives in rank 0, as without torchrun), or None: the job itself calls init_process_group.
        cwd: where they run; where the caller is, if not given.
        group_timeout: seconds after which the training's own collectives (those of the default group) fail.

    """
    return Run(_zygote(), size, job, args, env=env, store=store, cwd=cwd, group_timeout=group_timeout)


def tell(word):
    """Within a job: say to the test that this point was reached."""
    with open(os.path.join(os.environ["HOLDFAST_TEST_RUN"], f"{os.environ['RANK']}.said.{word}"), "w"):
        pass


def await_word(word, timeout=30):
    """Within a job: wait until the test, or a rank of it (``run.say``), has said a word."""
    _until(lambda: os.path.exists(os.path.join(os.environ["HOLDFAST_TEST_RUN"], f"said.{word}")), timeout, word)


class Run:
    """Ranks that run; ``pids`` are their processes, in the order of the ranks."""

    def __init__(self, zygote, size, job, args, *, env, store, cwd, group_timeout):
        self.size = size
        self.folder = tempfile.mkdtemp(prefix="holdfast-ranks-")
        self._zygote = zygote
        self._late = set()
        self._began = time.monotonic()
        self._ended = {}
        name = job if isinstance(job, str) else f"{job.__module__}:{job.__qualname__}"
        order = {
            "job": name,
            "args": pickle.dumps(args),
            "folder": self.folder,
            "size": size,
            "store": store,
            "group_timeout": group_timeout,
            "cwd": cwd or os.getcwd(),
            "path": sys.path,
            "env": [{**os.environ, **_extra(env, rank), **_torchrun(size, rank)} for rank in range(size)],
        }
        try:
            self.pids = zygote.ask(order)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for rank in range(self.size):
            self.kill(rank)
        self._reaped(time.monotonic() + PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)

    def alive(self, rank):
        """Tell whether a rank's process still runs (or is stopped)."""
        self._look()
        return rank not in self._ended

    def kill(self, rank, by=signal.SIGKILL):
        """Send a rank a signal; nothing where it has ended. The zygote does it, so that no other process gets it."""
        if self.alive(rank):
            self._zygote.signal(self.pids[rank], by)

    def heard(self, rank, word, timeout=30):
        """Wait until a rank has told a word, or has ended without telling it, and say whether it did."""
        path = os.path.join(self.folder, f"{rank}.said.{word}")
        _until(lambda: os.path.exists(path) or not self.alive(rank), timeout, f"{word} of rank {rank}")
        return os.path.exists(path)

    def say(self, word):
        """Let the ranks go on that wait for a word."""
        with open(os.path.join(self.folder, f"said.{word}"), "w"):
            pass

    def wait(self, timeout=60):
        """Wait until every rank has ended, end those that are late, and say how each ended."""
        if not self._reaped(self._began + timeout):
            for by in (signal.SIGCONT, signal.SIGABRT, signal.SIGKILL):  # aborted, it prints its stacks
                for rank in range(self.size):
                    if self.alive(rank):
                        self._late.add(rank)
                        self.kill(rank, by)
                if by != signal.SIGCONT:
                    self._reaped(time.monotonic() + PATIENCE)
        return [self._outcome(rank) for rank in range(self.size)]

    def results(self, timeout=60):
        """Wait for the end, and return what the job returned on each rank; RankFailed if it did not on all."""
        outcomes = self.wait(timeout)
        if not all(outcome.ok for outcome in outcomes):
            raise RankFailed(outcomes)
        return [outcome.value for outcome in outcomes]

    def _look(self):
        self._zygote.listen(0)
        for rank, pid in enumerate(self.pids):
            if rank not in self._ended and pid in self._zygote.statuses:
                self._ended[rank] = (self._zygote.statuses.pop(pid), time.monotonic() - self._began)

    def _reaped(self, deadline):
        while True:
            self._look()
            left = deadline - time.monotonic()
            if len(self._ended) == self.size or left <= 0:
                return len(self._ended) == self.size
            self._zygote.listen(left)

    def _outcome(self, rank):
        code, seconds = self._ended.get(rank, (-signal.SIGKILL, 0.0))
        made = Outcome(rank, signal=max(0, -code), code=max(-1, code), late=rank in self._late, seconds=seconds)
        with open(os.path.join(self.folder, f"{rank}.out"), errors="replace") as file:
            made.output = file.read()
        path = os.path.join(self.folder, f"{rank}.result")
        if os.path.exists(path):
            with open(path, "rb") as file:
                made.value, made.error, made.traceback = pickle.load(file)  # noqa: S301 - from the rank
        elif code == 0:
            made.error = RuntimeError("the process ended before the job did")
        return made


def _extra(env, rank):
    return (env(rank) if callable(env) else env) or {}


def _torchrun(size, rank):
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}


def _until(told, timeout, what):
    deadline = time.monotonic() + timeout
    while not told():
        if time.monotonic() > deadline:
            message = f"{what}: not within {timeout} s"
            raise TimeoutError(message)
        time.sleep(PAUSE)


@dataclass
class Zygote:
    """This side of the process that forks: orders there, process numbers and exit codes back."""

    process: subprocess.Popen
    wire: socket.socket
    owner: int
    log: str
    statuses: dict = field(default_factory=dict)
    answers: list = field(default_factory=list)

    def ask(self, order):
        send(self.wire, order)
        while not self.answers:
            self.listen(START, patient=False)
        answer = self.answers.pop()
        if isinstance(answer, str):
            raise RuntimeError(answer)  # noqa: TRY004 - the zygote's traceback, as text
        return answer

    def signal(self, pid, number):
        send(self.wire, ("signal", pid, int(number)))

    def listen(self, seconds, *, patient=True):
        """Take what has come, or the first thing that comes within some seconds."""
        try:
            self.wire.settimeout(seconds or 1e-4)
            first = self.wire.recv(1, socket.MSG_PEEK)
        except (TimeoutError, BlockingIOError):
            if patient:
                return
            first = b""
        if not first:
            with open(self.log, errors="replace") as file:
                message = f"the process that forks the ranks has ended, or says nothing:\n{file.read()[-OUTPUT:]}"
            raise RuntimeError(message)
        self.wire.settimeout(60)
        kind, value = receive(self.wire)
        if kind == "ended":
            self.statuses.update([value])
        else:
            self.answers.append(value)

    def close(self):
        if self.owner == os.getpid():
            self.wire.close()
            self.process.kill()
            self.process.wait()
            os.unlink(self.log)


def send(wire, value):
    """Put one value on the wire."""
    data = pickle.dumps(value)
    wire.sendall(struct.pack("<Q", len(data)) + data)


def receive(wire):
    """Take one value from the wire; EOFError at its end."""
    (length,) = struct.unpack("<Q", _exactly(wire, 8))
    return pickle.loads(_exactly(wire, length))  # noqa: S301 - from our own process


def _exactly(wire, length):
    data = b""
    while len(data) < length:
        part = wire.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data


_made = []


def _zygote():
    """Return this process's zygote; its first caller starts it."""
    if not _made or _made[0].owner != os.getpid() or _made[0].process.poll() is not None:
        _made[:] = [_start()]
    return _made[0]


def _start():
    ours, theirs = socket.socketpair()
    descriptor, log = tempfile.mkstemp(prefix="holdfast-zygote-")
    paths = os.pathsep.join([PYTHONPATH, os.environ.get("PYTHONPATH", "")])
    made = Zygote(
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.rank_zygote", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
        ),
        ours,
        os.getpid(),
        log,
    )
    theirs.close()
    os.close(descriptor)
    atexit.register(made.close)
    return made
