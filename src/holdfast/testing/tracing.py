"""What a process asked of its filesystem, by ``strace``: the calls, with their data, in their order."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext

CALLS = (
    "open,openat,openat2,creat,dup,dup2,dup3,fcntl,lseek,read,readv,write,pwrite64,writev,pwritev,pwritev2,truncate,"
    "ftruncate,fallocate,copy_file_range,sendfile,splice,ioctl,mmap,fsync,fdatasync,sync,syncfs,sync_file_range,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "chdir,fchdir,clone,clone3,fork,vfork,io_submit,io_uring_enter"
)
# Imported once for all recordings: torch, and what its optimizers import with their first step.
_PRELOAD = ("holdfast.front.checkpointer", "torch._dynamo")
_ALL_BYTES = str(1 << 28)
_PATIENCE = 60.0  # seconds for strace to attach; it takes milliseconds
_PR_SET_PTRACER, _ANY = 0x59616D61, ctypes.c_ulong(-1)
_BEGUN = re.compile(r"(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
_WHOLE = re.compile(r"(\d+)\s+(\w+)\((.*)$")
_RESULT = re.compile(r"^(.*)\)\s+= (-?\d+|\?|0x[0-9a-f]+)(<.*>)?.*$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_DESCRIPTOR = re.compile(r"^(-?\d+|AT_FDCWD)(?:<((?:\\x[0-9a-f]{2})*)>)?")
_NAMELESS = "?"


@dataclass(frozen=True)
class Call:
    """One call that has succeeded.

    Attributes:
        process: the thread that made it.
        name: of the system call.
        arguments: as strace writes them.
        result: what it returned.
        begun, ended: its place among the beginnings and ends of all calls.

    """

    process: int
    name: str
    arguments: tuple[str, ...]
    result: int
    begun: int
    ended: int

    def number(self, at: int) -> int:
        """Return an argument that is a number or a descriptor."""
        match = _DESCRIPTOR.match(self.arguments[at])
        return int(match.group(1)) if match and match.group(1) != "AT_FDCWD" else -1

    def text(self, at: int) -> bytes:
        """Return an argument that is a path or the bytes of a write; those of an array are joined."""
        return b"".join(_plain(found.group(1)) for found in _TEXT.finditer(self.arguments[at]))

    def path_of(self, at: int) -> str:
        """Return where the descriptor stood when the call was made; "" if that is no path."""
        match = _DESCRIPTOR.match(self.arguments[at])
        return os.fsdecode(_plain(match.group(2))) if match and match.group(2) else ""


def can_trace() -> bool:
    """Tell whether ``strace`` is there and may attach to a process of ours."""
    if shutil.which("strace") is None:
        return False
    try:
        trace(_nothing, ())
    except (RuntimeError, OSError):
        return False
    return True


def trace(function: Callable[..., object], arguments: tuple[object, ...]) -> list[Call]:
    """Run a function in a process of its own and return its calls; those that failed are left out.

    Raises:
        RuntimeError: if strace could not attach, or the function failed.

    """
    with tempfile.TemporaryDirectory(prefix="holdfast-trace-") as folder:
        child = processes().Process(target=_traced, args=(function, arguments), daemon=False)
        child.start()
        log = os.path.join(folder, "log")
        try:
            with _attached(child.pid or 0, log):
                child.join()
        finally:
            child.kill()
            child.join()
        if child.exitcode:
            msg = f"what was to be recorded has failed: exit code {child.exitcode}"
            raise RuntimeError(msg)
        with open(log, encoding="ascii") as file:
            return list(parse(file))


def processes() -> ForkServerContext:
    """Return what starts processes that have torch imported, as children of one that has no other threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOAD))
    return context


def _nothing() -> None:
    """Do nothing, and be watched."""


def _traced(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Wait until somebody watches, in the child; then run."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY, 0, 0, 0)  # some systems let only an ancestor attach
    deadline = time.monotonic() + _PATIENCE
    while not _tracer_of("self"):
        if time.monotonic() > deadline:
            raise SystemExit(1)
        time.sleep(0.002)
    function(*arguments)


class _attached:  # noqa: N801 - used like a function
    """strace on a process, from before the block to the process's end."""

    def __init__(self, process: int, log: str) -> None:
        command = ["strace", "-f", "-qq", "-y", "-xx", "-s", _ALL_BYTES, "-e", "signal=none", "-e", f"trace={CALLS}"]
        self._command = [*command, "-o", log, "-p", str(process)]
        self._process = process

    def __enter__(self) -> None:
        self._tracer = subprocess.Popen(self._command, stderr=subprocess.PIPE)  # noqa: S603 - no shell
        deadline = time.monotonic() + _PATIENCE
        while _tracer_of(str(self._process)) != self._tracer.pid:
            if self._tracer.poll() is not None or time.monotonic() > deadline:
                self._tracer.kill()
                said = self._tracer.communicate()[1].decode(errors="replace").strip()
                msg = f"strace could not attach to a process: {said or 'it did not say why'}"
                raise RuntimeError(msg)
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        try:
            self._tracer.communicate(timeout=_PATIENCE)  # it ends with the process
        finally:
            self._tracer.kill()


def _tracer_of(process: str) -> int:
    with open(f"/proc/{process}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("TracerPid"))


def parse(lines: Iterable[str]) -> Iterator[Call]:
    """Yield the calls of a log that have succeeded, in the order of their ends."""
    pending: dict[int, tuple[str, str, int]] = {}
    for at, line in enumerate(lines):
        text = line.rstrip("\n")
        if match := _BEGUN.match(text):
            pending[int(match.group(1))] = (match.group(2), match.group(3), at)
        elif match := _RESUMED.match(text):
            begun = pending.pop(int(match.group(1)), None)
            if begun is not None:
                yield from _call(int(match.group(1)), begun[0], begun[1] + match.group(3), begun[2], at)
        elif match := _WHOLE.match(text):
            yield from _call(int(match.group(1)), match.group(2), match.group(3), at, at)


def _call(process: int, name: str, rest: str, begun: int, ended: int) -> Iterator[Call]:
    match = _RESULT.match(rest)
    if match is None or match.group(2) == _NAMELESS:
        return
    result = int(match.group(2), 0)
    if result >= 0:
        yield Call(process, name, tuple(_split(match.group(1))), result, begun, ended)


def _split(text: str) -> Iterator[str]:
    """Yield the arguments: in hexadecimal, strings hold neither commas nor brackets."""
    depth, start = 0, 0
    for match in re.finditer(r"[\[\](){},]", text):
        sign = match.group()
        if sign == "," and not depth:
            yield text[start : match.start()].strip()
            start = match.end()
        depth += (sign in "[({") - (sign in "])}")
    yield text[start:].strip()


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
