"""Who has a directory, as far as one who only looks can know: nothing is locked, not even for a moment.

A trial lock could be in the way of a run that starts just then.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from dataclasses import dataclass

from holdfast.storage.regular import open_regular

_LOCKS = "/proc/locks"
_LONGEST = 4096  # bytes of a lock file


@dataclass(frozen=True)
class Holder:
    """What a run's lock file says, and whether the run lives.

    Attributes:
        run: its identifier.
        host: the machine.
        pid: its process there.
        since: since when, ISO 8601 in UTC; all of these "" where they cannot be read.
        alive: None where that cannot be told from here.

    """

    run: str
    host: str
    pid: str
    since: str
    alive: bool | None


def holder_of(path: str) -> Holder | None:
    """Return who holds a lock file; None if there is no such file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    facts = _facts(path) if stat.S_ISREG(status.st_mode) else {}
    run, host, pid, since = (str(facts.get(name, "")) for name in ("run", "host", "pid", "since"))
    return Holder(run, host, pid, since, _is_alive(status.st_ino, host, pid))


def _facts(path: str) -> dict[str, object]:
    try:
        with open_regular(path) as file:
            value = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_alive(inode: int, host: str, pid: str) -> bool | None:
    locked = _kernel_knows(inode)
    if locked or host != socket.gethostname():
        return locked or None  # another machine's locks are not seen here
    if locked is False or not pid.isdecimal():
        return locked
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None  # a process of this number lives: perhaps another


def _kernel_knows(inode: int) -> bool | None:
    """Tell whether the kernel lists a lock of this file; None where it lists none of anybody."""
    try:
        with open(_LOCKS, encoding="ascii", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    return any("FLOCK" in line and any(part.endswith(f":{inode}") for part in line) for line in lines)
