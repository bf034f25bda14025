"""Who has claimed a prefix: a process, on a machine, for a run. And whether that process is known to have ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass, replace

LONGEST_LEASE = 600.0  # seconds: what another claims to need is believed up to here
_STARTED = 19  # of the fields in /proc/PID/stat behind the name: when the process was started


@dataclass(frozen=True)
class Claimant:
    """What a claim says of its process.

    Attributes:
        run: the run's identifier.
        host, pid: the machine's name, the process there.
        since: since when, ISO 8601 in UTC, by that machine's clock.
        token: another one for each claim.
        place: the same for all processes that see each other's numbers; "" where that is not known.
        started: when the process was started, as its system counts; "" where that is not known.
        lease: seconds after which it counts as dead, if it has not renewed its claim.
        beat: how often it has.

    """

    run: str = ""
    host: str = ""
    pid: str = ""
    since: str = ""
    token: str = ""
    place: str = ""
    started: str = ""
    lease: float = 60.0
    beat: int = 0

    @classmethod
    def this(cls, run: str, since: str, lease: float) -> Claimant:
        """Return this process, with a new token."""
        pid = os.getpid()
        return cls(run, _host(), str(pid), since, secrets.token_hex(8), _place(), _started(pid) or "", lease)

    @classmethod
    def decode(cls, data: bytes) -> Claimant:
        """Read a claim; what cannot be read of it is as if it were not there."""
        with contextlib.suppress(ValueError, RecursionError, TypeError):
            facts = json.loads(data)
            if isinstance(facts, dict):
                texts = {name: str(facts.get(name, "")) for name in _TEXTS}
                lease = min(max(float(facts.get("lease", cls.lease)), 0.0), LONGEST_LEASE)
                return cls(**texts, lease=lease, beat=int(facts.get("beat", 0)))
        return cls()

    def encode(self) -> bytes:
        """Return the claim as bytes: others at each beat, so that another etag tells of one that lives."""
        texts = {name: getattr(self, name) for name in _TEXTS}
        return json.dumps({**texts, "lease": self.lease, "beat": self.beat}).encode()

    def later(self) -> Claimant:
        """Return the claim as it is renewed."""
        return replace(self, beat=self.beat + 1)

    @property
    def is_near(self) -> bool:
        """Tell whether it is of this machine, so that its process can be looked for."""
        return bool(self.place) and self.place == _place() and self.pid.isdecimal()

    @property
    def is_dead(self) -> bool:
        """Tell whether its process was one of this machine and has ended, or is this one and has given the claim up.

        One that cannot be seen may live.
        """
        if self.token in _given_up:
            return True
        if not self.is_near:
            return False
        try:
            os.kill(int(self.pid), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # another user's; a number that is none
            return False
        started = _started(int(self.pid))
        return bool(self.started) and started is not None and started != self.started  # the number was given again

    @property
    def who(self) -> dict[str, str]:
        """What an error says of it."""
        return {name: getattr(self, name) for name in ("run", "host", "pid", "since")}


_given_up: set[str] = set()  # tokens of claims of this process whose objects may still be there


def give_up(token: str) -> None:
    """Take note that a claim of this process is over for good, whether or not its object could be removed."""
    _given_up.add(token)


_TEXTS = ("run", "host", "pid", "since", "token", "place", "started")


def seconds() -> float:
    """Return seconds that go on while the machine sleeps, where its system counts those."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _host() -> str:
    """Return this machine's name: what ``socket.gethostname`` says, whose module takes long to import."""
    return os.uname().nodename


def _place() -> str:
    """Return what tells this boot of this machine, and this container's view of its processes, from all others.

    A name does not: containers of many machines have the same one, and the same numbers of processes.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        space = os.stat("/proc/self/ns/pid").st_ino
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:16]


def _started(pid: int) -> str | None:
    """Return when a process was started; None where that cannot be told. A zombie has ended: ""."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[:1] == ["Z"] else fields[_STARTED] if len(fields) > _STARTED else None
