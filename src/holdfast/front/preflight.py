"""Whether what is to be saved will fit: asked at the start of a run by estimate, and before each save.

A warning with the numbers is all that comes of it. The save is tried in any case: a filesystem that compresses, or a
quota that nobody can ask for, knows better, and a save that fails leaves what is committed as it was. Nothing is
removed to make room: until the new checkpoint is durable, the old ones are all there is.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from holdfast.directories import is_sealed
from holdfast.front.planning import Run
from holdfast.front.sizes import amount
from holdfast.policy.keeping import most_kept
from holdfast.policy.ledger import Ledger
from holdfast.storage import Free

_MANY = 1000  # files: more than anybody counts


@dataclass
class Preflight:
    """Knows how large a checkpoint is, as far as that can be known. Rank 0 only.

    Attributes:
        size: the bytes of the next one; 0 if there is no telling yet.

    """

    size: int = 0
    _began: bool = False

    def begin(self, run: Run, ledger: Ledger, size: int) -> str:
        """Return a warning if what the run will keep, by its rules, is more than there is room for; else "".

        Args:
            run: the run.
            ledger: what it has already.
            size: about how many bytes its state has.

        """
        self.size = self.size or size
        if self._began or not self.size:
            return ""
        self._began = True
        free = _free(run)
        if free is None:
            return ""
        settings = run.settings
        most = most_kept(
            settings.rules,
            monitor=settings.monitor,
            mode=settings.mode,
            size=self.size,
            resumed=bool(run.protected),
        )
        if most is None or settings.save_top_k == 0:
            most, what = 1, "a checkpoint"
        else:
            what = f"the {most} that the rules may keep at a time" if most > 1 else "the one that the rules keep"
        there = min(len(ledger.entries), most)
        files = most + 1 - there
        if files * self.size <= free.bytes and (free.files is None or files <= free.files):
            return ""
        return (
            f"a checkpoint has about {amount(self.size)}, and {what}, with the next one while it is written, "
            f"take {amount((most + 1) * self.size)}, of which {amount(there * self.size)} are there. "
            f"{_left(run, free)}. Free some space, or keep fewer checkpoints"
        )

    def before(self, run: Run, name: str, under_way: int) -> str:
        """Return a warning if a save cannot fit, as far as is known; else "".

        Args:
            run: the run.
            name: the file that is to be written.
            under_way: how many saves before it are not written yet.

        """
        free = _free(run) if self.size else None
        needed = self.size * (1 + under_way)
        if free is None or (needed <= free.bytes and free.files != 0):
            return ""
        more = f", and {under_way} before it that are being written take as much each" if under_way else ""
        return (
            f"the checkpoint {run.store.path(name)} is likely to fail: it takes about {amount(self.size)}{more}. "
            f"{_left(run, free)}. It is tried all the same. Free some space, or keep fewer checkpoints"
        )

    def learn(self, run: Run, name: str) -> None:
        """Take note of how large a checkpoint was that is committed."""
        if run.store.is_local and (not os.path.isdir(run.store.path(name)) or is_sealed(run.store, name)):
            try:
                self.size = run.store.size(name)
            except OSError as error:
                if error.errno != errno.ENOENT:  # gone already
                    raise


def _free(run: Run) -> Free | None:
    try:
        return run.store.free()
    except OSError:  # the save itself will say what is wrong there
        return None


def _left(run: Run, free: Free) -> str:
    files = "" if free.files is None or free.files > _MANY else f" and room for {free.files} files"
    return f"The filesystem of {run.store.root} has {amount(free.bytes)}{files} left"
