"""Kill a saver, or let a system call of it fail, at each single system call that touches its files.

A function of yours saves checkpoints into a folder. It is run in a forked process once, to find every
system call with which it touches the folder, and then once more for each of them, so that it is killed
(SIGKILL) right before that call, or that call fails. What the folder holds afterwards is for you to judge::

    from holdfast.testing.kills import Forks

    with Forks("my_scenarios") as forks:
        for point in forks.points("my_scenarios:save_twice", "runs/whole", watch="runs/whole"):
            folder = f"runs/{point.call}-{point.number}"
            ended = forks.run("my_scenarios:save_twice", folder, watch=folder, at=point, do="kill")
            assert ended.reached and loads_as_it_should(folder, ended.said)

The calls of all threads and of all processes that the run forks are counted together, each by its name:
the third ``fsync`` is the third that touches the folder, whichever thread makes it. Libraries that make
system calls by themselves (Rust, io_uring's ring) are seen as well, as it is the kernel that stops the
run. What goes through mapped memory is not a system call, and is not seen; what an io_uring does behind
its entering neither.

Linux on x86-64, and where a process may trace its children; see ``can_trace``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from typing_extensions import Self

from holdfast.testing._calls import READING

__all__ = ["READING", "Ended", "Forks", "Point", "TraceError", "can_trace"]


class TraceError(Exception):
    """The instrument itself does not work here: the message says why."""


@dataclass(frozen=True)
class Point:
    """One system call of a run.

    Attributes:
        call: its name, as ``"fsync"``.
        number: the how manieth of its name that touches the folder, from 1.
        path: what it touched in the run in which it was found.

    """

    call: str
    number: int
    path: str = ""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: 0 if the function returned, 1 if it raised, minus the signal's number if it was killed.
        said: what it told, in order; at the end ``{"raised", "message", "errno", "path"}`` if it raised.
        points: every system call that touched the watched folder, in order.
        reached: whether the run came to the call that it was to be struck at.

    """

    code: int
    said: tuple[Any, ...]
    points: tuple[Point, ...]
    reached: bool

    @property
    def raised(self) -> dict[str, Any] | None:
        """What the function raised, if it did."""
        last = self.said[-1] if self.said else None
        return last if isinstance(last, dict) and "raised" in last else None


class Forks:
    """A process that imports modules once, and forks a child of itself for every run.

    Importing torch takes seconds, a fork milliseconds. The child has what the modules had at import, and
    nothing of an earlier run. The modules must leave no threads behind.

    Args:
        modules: what to import. They are found as from the current folder.
        warm: ``"module:name"`` of a function that is called there once, without arguments, for what is
            imported or made only at its first use. It must leave no threads behind.

    Raises:
        TraceError: if a module cannot be imported; what it said is on stderr.

    """

    def __init__(self, *modules: str, warm: str = "") -> None:
        """Start the process and wait until it has imported all."""
        self._scratch = tempfile.TemporaryDirectory(prefix="holdfast-kills-")
        command = [sys.executable, "-m", "holdfast.testing._serving", warm, *modules]
        path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(  # noqa: S603 - our own
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *reason: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the process. Idempotent."""
        self._server.kill()
        self._server.communicate()
        self._scratch.cleanup()

    def run(
        self,
        function: str,
        *arguments: Any,
        watch: str | os.PathLike[str] | None = None,
        at: Point | None = None,
        do: str = "kill",
        limit: int = 60,
    ) -> Ended:
        """Run a function in a forked child, and strike it at a point.

        Args:
            function: ``"module:name"``. It is called with ``tell`` and the arguments; ``tell(value)``
                passes a value of JSON's on at once, so that it is known also of a run that is killed.
            arguments: values of JSON's.
            watch: the folder whose calls are counted; without one nothing is, and the run costs less.
            at: the call to be struck; needs ``watch``.
            do: ``"kill"`` right before the call; ``"torn"``: half of its bytes are written, and the run
                is killed (a call that writes none is made, and the run killed right after it);
                ``"short"``: half of its bytes are written, and the call says so; or the name of an
                error, as ``"ENOSPC"``, with which it fails without being made.
            limit: seconds after which a run that hangs is ended, by SIGALRM.

        Raises:
            TraceError: if this machine lets nobody trace, or the server is gone.

        """
        said = os.path.join(self._scratch.name, "said")
        if os.path.exists(said):
            os.unlink(said)
        order = {"function": function, "arguments": arguments, "said": said, "limit": limit, "watch": None}
        if watch is not None:
            fault = {} if at is None else {"call": at.call, "number": at.number, "do": do}
            order["watch"] = {"folder": os.path.realpath(watch), **fault}
        answer = self._answer(json.dumps(order))
        return Ended(answer["code"], _read(said), _numbered(answer["seen"]), answer["reached"])

    def points(self, function: str, *arguments: Any, watch: str | os.PathLike[str]) -> tuple[Point, ...]:
        """Run a function to its end; return every system call with which it touched the folder, in order.

        Raises:
            TraceError: if it did not end as it should, or this machine lets nobody trace.

        """
        ended = self.run(function, *arguments, watch=watch)
        if ended.code != 0:
            msg = f"{function} ended with {ended.code} though nothing was done to it: {ended.raised or ended.said[-1:]}"
            raise TraceError(msg)
        return ended.points

    def _answer(self, line: str | None = None) -> Any:
        if self._server.stdin is None or self._server.stdout is None:
            raise AssertionError("pipes were asked for")
        try:
            if line is not None:
                print(line, file=self._server.stdin, flush=True)
            answer = json.loads(self._server.stdout.readline())
        except (BrokenPipeError, ValueError):
            msg = f"the process that forks is gone (exit code {self._server.wait()}); stderr says why"
            raise TraceError(msg) from None
        if "error" in answer:
            raise TraceError(answer["error"])
        return answer


def can_trace() -> bool:
    """Tell whether the instrument works on this machine: Linux on x86-64, ptrace and seccomp allowed."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Forks("os") as forks:
                ended = forks.run("os:listdir", folder, watch=folder)
        except TraceError:
            return False
    return bool(ended.said) or ended.code == 0


def _read(path: str) -> tuple[Any, ...]:
    if not os.path.exists(path):
        return ()
    with open(path, encoding="utf-8") as file:
        return tuple(json.loads(line) for line in file if line.endswith("\n"))


def _numbered(seen: Sequence[Sequence[str]]) -> tuple[Point, ...]:
    counts: Counter[str] = Counter()
    points = []
    for call, path in seen:
        counts[call] += 1
        points.append(Point(call, counts[call], path))
    return tuple(points)
