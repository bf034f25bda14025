"""Power loss: every state that a journalling filesystem may legally be left in, at every moment of a scenario.

A scenario is a function that saves something. It runs once, in a process of its own, under ``strace``;
from its calls are built the folders that could be there if the power had gone at any moment. What is to
hold in each of them is yours to say::

    def scenario(folder):
        write_safely(os.path.join(folder, "a"), b"first")
        mark("first")            # from here on it must never be lost

    for state in record(scenario, tmp_path / "recorded").states():
        state.write(tmp_path / "after")
        assert "first" not in state.marks or (tmp_path / "after" / "a").read_bytes() == b"first", state

The idea is that of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014) and
CrashMonkey (Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI
2018). The rules are in ``holdfast.testing.outcomes``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast.testing.operations import Folder, Step, UnmodelledError
from holdfast.testing.outcomes import Tree, outcomes
from holdfast.testing.tracing import can_trace, trace
from holdfast.testing.translating import Translator

__all__ = ["Recording", "State", "UnmodelledError", "can_trace", "mark", "record"]

_MARKS = "HOLDFAST_POWER_MARKS"


@dataclass(frozen=True)
class State:
    """A folder as it may be after a power cut.

    Attributes:
        point: how many operations of the scenario had begun.
        marks: what the scenario had said by then.
        lost: what had been asked for and is not there.
        tree: the files and folders.

    """

    point: int
    marks: tuple[str, ...]
    lost: tuple[str, ...]
    tree: Tree

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Make the folder look like this state, whatever was there before."""
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        for name in self.tree.folders:
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        first: dict[int, str] = {}
        for name, inode in self.tree.files:
            path = os.path.join(folder, name)
            if inode in first:
                os.link(first[inode], path)
                continue
            first[inode] = path
            with open(path, "wb") as file:
                file.write(self.tree.contents[inode])

    def __str__(self) -> str:
        """Tell the state in a few lines: for the message of a test that fails."""
        there = ", ".join(f"{name} ({len(self.tree.contents[inode])} bytes)" for name, inode in self.tree.files)
        return (
            f"power lost after operation {self.point}; marks: {', '.join(self.marks) or 'none'}; "
            f"not there: {'; '.join(self.lost) or 'nothing'}; files: {there or 'none'}"
        )


@dataclass(frozen=True)
class Recording:
    """What a scenario has asked of the filesystem.

    Attributes:
        start: the folder before it.
        steps: the operations, in their order.

    """

    start: Folder
    steps: tuple[Step, ...]

    def states(self, *, any_order: bool = False) -> Iterator[State]:
        """Yield every state that a power cut may leave, at every moment; the same one never twice for the same marks.

        ``any_order`` is stricter than journalling filesystems are: the names within a folder, too, reach
        the disk in any order.
        """
        for point, marks, tree in outcomes(self.start, self.steps, any_order=any_order):
            yield State(point, marks, tree.lost, tree)

    def __str__(self) -> str:
        """Tell the operations, one a line."""
        return "\n".join(f"{at:4} {step.told}" for at, step in enumerate(self.steps, 1))


def record(scenario: Callable[..., object], folder: str | os.PathLike[str], *arguments: object) -> Recording:
    """Run ``scenario(folder, *arguments)`` in a process of its own, and return what it asked of the folder.

    The function and its arguments are pickled, so it has to be one that can be imported. What is in the
    folder before is taken to be durable. The folder itself is made where it is missing. All threads
    and child processes are followed. Needs Linux and ``strace``: ask ``can_trace()``.

    Raises:
        RuntimeError: if strace may not attach, or the scenario fails.
        UnmodelledError: if it changes a file in a way that is not followed: by a mapping of its memory,
            io_uring, ``copy_file_range``, or with symbolic links.

    """
    os.makedirs(folder, exist_ok=True)
    root = os.path.realpath(folder)
    start = Folder.of(root)
    with tempfile.TemporaryDirectory(prefix="holdfast-power-") as beside:
        marks = os.path.join(os.path.realpath(beside), "marks")
        calls = trace(_recorded, (scenario, root, arguments, marks))
        return Recording(start, tuple(Translator(root, marks, start).steps(calls)))


def mark(text: str) -> None:
    """Within a scenario: say something at this moment, in one line. Elsewhere: nothing."""
    path = os.environ.get(_MARKS)
    if path:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.replace("\n", " ").encode() + b"\n")
        finally:
            os.close(descriptor)


def _recorded(scenario: Callable[..., object], folder: str, arguments: tuple[object, ...], marks: str) -> None:
    os.environ[_MARKS] = marks
    os.chdir(os.getcwd())  # so that the recording knows where relative paths begin
    scenario(folder, *arguments)
