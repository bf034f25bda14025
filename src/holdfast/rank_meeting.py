"""How the ranks of a training meet: through the store of torch's default group, each saying where it lives.

No torch here: the store is handed in.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

log = logging.getLogger("holdfast")

_ANSWER = 10.0  # seconds that the store has for an answer


@dataclass(frozen=True)
class Place:
    """Where a rank lives.

    Attributes:
        machine: the machine, and the processes that it can look at; "" where that cannot be told.
        pid: its process.
        began: when that began, in the system's own count: another process may get the same number.
        name: the machine's name, for messages.

    """

    machine: str = ""
    pid: int = 0
    began: str = ""
    name: str = ""


def here() -> Place:
    """Return where this process lives."""
    pid = os.getpid()
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            machine = f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: then every rank counts as one elsewhere
        return Place(pid=pid, name=socket.gethostname())
    return Place(machine, pid, _began(pid)[1], socket.gethostname())


def is_gone(place: Place) -> bool:
    """Tell whether a process of this machine has ended. One that is stopped has not."""
    state, began = _began(place.pid)
    return state in ("", "Z", "X") or began != place.began


def _began(pid: int) -> tuple[str, str]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return words[0], words[19]


def meet(store: Any, rank: int, size: int, patience: timedelta) -> tuple[Shared, list[Place], list[int]]:
    """Wait until all ranks are here.

    Args:
        store: torch's store of the default group.
        rank: this one.
        size: how many there are.
        patience: how long to wait.

    Returns:
        a store of a connection of its own, the places of all, and which did not come: none, if all did.

    """
    own = store.clone()  # a connection that others hold while they wait would keep this from answering
    own.set_timeout(timedelta(seconds=_ANSWER))
    count = own.add("holdfast/count", 1)
    prefix = f"holdfast/{(count - 1) // size}"  # one store may serve several groups, one after the other
    own.set(f"{prefix}/place/{rank}", json.dumps(asdict(here())))
    if count % size == 0:
        own.set(f"{prefix}/all", "1")
    keys = [f"{prefix}/place/{other}" for other in range(size)]
    begun, told, pause = time.monotonic(), False, 0.005
    while not (own.check([f"{prefix}/all"]) and own.check(keys)):
        waited = time.monotonic() - begun
        if waited > patience.total_seconds():
            return Shared(own, prefix), [], [other for other, key in enumerate(keys) if not own.check([key])]
        if waited > 60 and not told:  # noqa: PLR2004 - a minute
            told = True
            missing = [other for other, key in enumerate(keys) if not own.check([key])]
            log.warning("rank %d waits for ranks %s to begin checkpointing, since a minute", rank, missing)
        time.sleep(pause)
        pause = min(1.5 * pause, 1.0)
    places = [Place(**json.loads(value)) for value in own.multi_get(keys)]
    return Shared(own, prefix), places, []


class Shared:
    """A store under a prefix, for several threads of a process. Each method raises a RuntimeError if it is gone."""

    def __init__(self, store: Any, prefix: str) -> None:
        """Take a store of torch's."""
        self._store, self._prefix = store, prefix
        self._lock = threading.Lock()

    @contextmanager
    def _held(self) -> Iterator[Any]:
        if not self._lock.acquire(timeout=_ANSWER):
            msg = f"the store has not answered for {_ANSWER:.0f} s"
            raise RuntimeError(msg)
        try:
            yield self._store
        finally:
            self._lock.release()

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    def add(self, key: str, number: int) -> int:
        """Add to a count, and return it."""
        with self._held() as store:
            return int(store.add(self._key(key), number))

    def set(self, key: str, value: str) -> None:
        """Write a value."""
        with self._held() as store:
            store.set(self._key(key), value)

    def check(self, key: str) -> bool:
        """Tell whether there is a value."""
        with self._held() as store:
            return bool(store.check([self._key(key)]))

    def get(self, keys: Sequence[str]) -> list[str]:
        """Return values that are there."""
        with self._held() as store:
            return [value.decode() for value in store.multi_get([self._key(key) for key in keys])]

    def swap(self, key: str, value: str) -> str:
        """Write a value where there is none; return the one that is there then."""
        with self._held() as store:
            return bytes(store.compare_set(self._key(key), "", value)).decode()
