"""What a piece of work took besides time: CPU seconds, children included, and memory at its highest."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """Return the CPU time of this process, of its ended children and of its living ones (to 10 ms).

    What the kernel's own threads spend on writing back the page cache for buffered writers is in no
    process's account, and not counted here.
    """
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime + sum(map(_cpu_of, children()))


def children() -> list[int]:
    """Return the living child processes."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in path.read_text(encoding="ascii").split()]
    return found


def give_back() -> None:
    """Give freed memory back to the system, so that what is used from here on is seen to be used."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    """Let the highest memory count anew from here; where the kernel cannot, do nothing."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> int:
    """Return the highest resident memory since ``reset_peak``, in bytes; 0 where it cannot be known."""
    return _status("self", "VmHWM")


def resident() -> int:
    """Return the resident memory of now, in bytes."""
    return _status("self", "VmRSS")


def children_memory() -> int:
    """Return the memory that living children hold for themselves (what they share is in our own), in bytes."""
    return sum(_status(str(pid), "RssAnon") for pid in children())


def _cpu_of(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _status(pid: str, name: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) * 1024 for words in lines if words and words[0] == f"{name}:"), 0)
