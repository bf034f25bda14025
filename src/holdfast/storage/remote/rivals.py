"""The other claims of a prefix: who has it, who wants it, and whether they live.

A claim lives as long as it is renewed. That is seen by the server's clock, or by watching it for as long as its lease
says; clocks of different machines are never compared. A process of this machine that has ended is dead at once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from holdfast.errors import DirectoryInUseError
from holdfast.storage import hurry
from holdfast.storage.contract import HIDDEN
from holdfast.storage.remote.claimant import Claimant, seconds
from holdfast.storage.remote.conditional import read
from holdfast.storage.remote.objects import Listed, Objects

log = logging.getLogger("holdfast")

FOLDER = HIDDEN + "claims"
HAS, WANTS = ".has", ".wants"  # how the names of claims end
_LOOKS = 12  # looks at a claim in the time of its lease


@dataclass(frozen=True)
class Rival:
    """A claim that is there.

    Attributes:
        key: of its object.
        claimant: what it says.
        data: its bytes.
        age: seconds since it was renewed, by the server's clock; 0 where that does not say.

    """

    key: str
    claimant: Claimant
    data: bytes
    age: float

    @property
    def has(self) -> bool:
        """Whether it has the prefix, and does not just want it."""
        return self.key.endswith(HAS)

    @property
    def lapsed(self) -> bool:
        """Tell whether its process is known to be dead, or has not renewed it for as long as its lease says."""
        return self.claimant.is_dead or self.age > self.claimant.lease


def folder_of(base: str) -> str:
    """Return the beginning of the keys of a prefix's claims."""
    return f"{base}/{FOLDER}/"


def claimed_below(names: Iterable[str]) -> tuple[str, ...]:
    """Return the folders, as beginnings of names, that runs below a prefix have claimed; by the names in it."""
    found = (name.rpartition(f"/{FOLDER}/")[::2] for name in names if name.endswith(HAS))
    return tuple(sorted({f"{folder}/" for folder, claim in found if folder and "/" not in claim}))


def rivals_of(objects: Objects, base: str, own: str = "") -> list[Rival]:
    """Return the claims of a prefix, without an own one, whose time is the server's now. One request, and one a claim.

    Raises:
        OSError: if they cannot be listed or read.

    """
    listed = list(objects.list(folder_of(base)))
    now = next((item.modified for item in listed if _same(item.key, own)), None)
    found = []
    for item in listed:
        if item.key.endswith((HAS, WANTS)) and not _same(item.key, own):
            data = read(objects, item.key)
            if data is not None:  # else it was given up meanwhile
                found.append(Rival(item.key, Claimant.decode(data), data, _age(item, now)))
    return found


def _same(one: str, other: str) -> bool:
    return one.strip("/") == other.strip("/")


def _age(item: Listed, now: datetime | None) -> float:
    return max((now - item.modified).total_seconds(), 0.0) if now is not None and item.modified is not None else 0.0


def outlast(objects: Objects, rival: Rival, root: str) -> None:
    """Return when a claim has lapsed or is gone: never later than its lease says.

    Raises:
        DirectoryInUseError: if it lives: its process is seen on this machine, or it was renewed.
        InterruptedError: if nobody waits for that any longer, see ``hurry``.
        OSError: if it cannot be read.

    """
    claimant = rival.claimant
    if rival.lapsed:
        return
    if claimant.is_near:
        raise DirectoryInUseError(root, **claimant.who)
    rest, begun = claimant.lease - rival.age, seconds()
    log.warning(
        "%s is claimed by run %s (process %s on host %s), which renewed that %.0f s ago and may be dead: waiting until "
        "it does so again, and at most %.0f s",
        root,
        claimant.run or "?",
        claimant.pid or "?",
        claimant.host or "?",
        rival.age,
        rest,
    )
    while (left := rest - (seconds() - begun)) > 0:
        hurry.pause(min(left, claimant.lease / _LOOKS))
        if hurry.is_hurried():
            raise InterruptedError(errno.EINTR, f"{root}: not taken, as nobody waits for it any longer")
        data = read(objects, rival.key)
        if data is None:
            return
        if data != rival.data:
            raise DirectoryInUseError(root, **Claimant.decode(data).who)


def clear(objects: Objects, rivals: list[Rival]) -> None:
    """Remove claims that have lapsed."""
    if rivals:
        with contextlib.suppress(FileNotFoundError):
            objects.remove([rival.key for rival in rivals])
