"""Taking a prefix that may be another run's: say that it is wanted, see who else does, then have it or raise."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

from holdfast.errors import DirectoryInUseError
from holdfast.storage.remote.abilities import abilities_of
from holdfast.storage.remote.claimant import Claimant, seconds
from holdfast.storage.remote.conditional import create, replace, watch
from holdfast.storage.remote.objects import Objects
from holdfast.storage.remote.rivals import HAS, WANTS, Rival, clear, folder_of, outlast, rivals_of

_PAUSE = 0.1  # seconds between looks at one who is about to give way
_LATE = 1 / 3  # of the lease: a wish so old may soon seem to be that of a dead process


class Taken(NamedTuple):
    """A claim: its key, what it says, its etag ("" where there are no conditions), since when (``seconds``)."""

    key: str
    claimant: Claimant
    etag: str
    renewed: float


class Taking:
    """One attempt to take a prefix."""

    def __init__(self, objects: Objects, base: str, root: str, claimant: Claimant) -> None:
        """Find out, once in a process, what the server can.

        Raises:
            OSError: if nothing can be written there.

        """
        self._objects, self._base, self._root, self._claimant = objects, base, root, claimant
        folder = folder_of(base)
        self._wish = f"{folder}{claimant.token}{WANTS}"
        self._conditions = abilities_of(objects, base).conditions
        self._key = f"{folder}run{HAS}" if self._conditions else f"{folder}{claimant.token}{HAS}"
        self._outlived: set[tuple[str, bytes]] = set()

    def take(self) -> Taken:
        """Return the claim: at once where nobody else is, after at most one lease where one is dead.

        Raises:
            DirectoryInUseError: if one who lives has it, or wants it and comes first.
            OSError: if the server cannot be asked.

        """
        begun, rivals = seconds(), list[Rival]()
        try:
            while seconds() - begun < 2 * self._claimant.lease:
                wished = seconds()
                self._objects.put(self._wish, self._claimant.encode())  # its time is the server's now
                rivals = rivals_of(self._objects, self._base, self._wish)
                taken = self._have(rivals) if self._is_free(rivals) else None
                if taken is not None and self._is_sole(taken, wished):
                    return taken
                time.sleep(_PAUSE)
        finally:
            with contextlib.suppress(OSError):  # it lapses
                self._objects.remove([self._wish])
        raise DirectoryInUseError(self._root, **(rivals[0].claimant.who if rivals else {}))

    def _is_free(self, rivals: list[Rival]) -> bool:
        """Tell whether it may be had now; False if all has to be looked at again."""
        living = [rival for rival in rivals if not self._is_over(rival)]
        for rival in living:
            if rival.has:
                outlast(self._objects, rival, self._root)
                self._outlived.add((rival.key, rival.data))
            elif not self._conditions and rival.claimant.token < self._claimant.token:
                raise DirectoryInUseError(self._root, **rival.claimant.who)
        if any(rival.has or not self._conditions for rival in living):
            return False  # time has passed; or one that comes later, which gives way or has it already
        clear(self._objects, [rival for rival in rivals if rival.key != self._key and rival not in living])
        return True

    def _is_over(self, rival: Rival) -> bool:
        return rival.lapsed or (rival.key, rival.data) in self._outlived

    def _have(self, rivals: list[Rival]) -> Taken | None:
        """Make the object that says so; None if somebody was quicker."""
        before = next((rival for rival in rivals if rival.key == self._key), None)
        data, begun = self._claimant.encode(), seconds()
        if not self._conditions:
            self._objects.put(self._key, data)
            return Taken(self._key, self._claimant, "", begun)
        seen = watch(self._objects, self._key) if before is not None else None
        if seen is None:
            head = create(self._objects, self._key, data)
        elif before is not None and seen[1] == before.data:
            head = replace(self._objects, self._key, data, seen[0].etag)
        else:
            return None
        return None if head is None else Taken(self._key, self._claimant, head.etag, begun)

    def _is_sole(self, taken: Taken, wished: float) -> bool:
        """Where there are no conditions, and the server was slow to answer: tell whether nobody else has it, too."""
        if taken.etag or seconds() - wished < self._claimant.lease * _LATE:
            return True
        others = rivals_of(self._objects, self._base, taken.key)
        if any(rival.has and not self._is_over(rival) for rival in others):
            self._objects.remove([taken.key])
            return False
        return True
