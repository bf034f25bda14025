"""The uploads of a run to its mirror: begun at each commit, minded by retention, waited for at the end. Rank 0 only."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterable

from holdfast.clock import Clock
from holdfast.errors import HoldfastError, SaveError, printable
from holdfast.front.mirror_keeping import MirrorRules
from holdfast.front.mirror_words import MirrorWords
from holdfast.front.progress import shown
from holdfast.front.sizes import amount
from holdfast.mirroring import Mirror, Status
from holdfast.policy import tiers
from holdfast.scanning import newest_first, scan
from holdfast.storage import Owner, Store, open_store, own_place
from holdfast.telling import warn

log = logging.getLogger("holdfast")

ENDING = 20.0  # seconds for the uploads when a run is ended by an exception or a signal, and nobody says how many
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SLICE = 0.2  # seconds between two looks
_STALLED = 300.0  # seconds without a byte, from a mirror that fails, after which the end waits no longer; ENDING is
# enough where another run has the mirror, which may train for days


class Uploads:
    """What a run has its mirror do.

    Args:
        words: where the mirror is, and how it is used.
        store: the directory of the run.
        clock: tells the time that rules about age go by.
        protected: returns the names of what the run resumed from.
        run: returns the identifier of the run: what others have on the mirror is none of its own to remove.
        depth: how many folders down the names of the run may lie; what died deeper down is another's.

    Attributes:
        mirror: the mirror itself.
        spared: the names that retention has dropped here and that the mirror still needs.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - what there is, and whose it is
        self,
        words: MirrorWords,
        store: Store,
        clock: Clock,
        protected: Callable[[], Collection[str]],
        run: Callable[[], str],
        depth: int = 0,
    ) -> None:
        """Begin nothing yet."""
        self._words = words
        self._store = store
        far = open_store(words.url)
        rules = MirrorRules(store, far, words.keep, protected=protected, clock=clock, run=run)
        self._rules = rules
        self._far, self._run, self._clock = far, run, clock
        self._asked, self._depth = False, depth
        self._owner: Owner | None = None
        self.spared: set[str] = set()
        self._let_go: set[str] = set()
        self.mirror = Mirror(store, far, bandwidth=words.bandwidth, wants=self._wants, after=self._forget_there)
        self._pruning_fails = False

    def _wants(self, name: str) -> bool:
        """Tell whether a checkpoint is to be there, on the mirror's thread; the first time, take the mirror.

        Raises:
            DirectoryInUseError: if another run mirrors there; asked again as long as this one goes on.

        """
        if not self._asked:
            since = self._clock.now().isoformat(timespec="seconds")
            self._owner = own_place(self._far, run=self._run(), since=since)
            self._asked = True
            self._sweep()
        return self._rules.wants(name)

    def _sweep(self) -> None:
        """Now that the mirror is ours, remove what died on its way there, such as uploads of a machine that is gone.

        Those that are noted here, and will be gone on with, stay. What cannot be removed costs money, and no more.
        """
        try:
            for gone in self._far.sweep(self._depth) if self._owner is not None else ():
                log.info("removed from the mirror, as it was never finished: %s", printable(gone))
        except OSError as error:
            log.warning("what died on its way to the mirror %s could not be removed: %s", self._words.url, error)

    def _forget_there(self, name: str) -> None:
        """After a commit there, on the mirror's thread: retention there. What fails is done after the next one."""
        try:
            gone = self._rules.apply(name)
        except (OSError, HoldfastError) as error:
            if not self._pruning_fails:
                again = "The next commit there tries again"
                warn(f"nothing was removed from the mirror {self._words.url}: {error}. {again}")
            self._pruning_fails = True
        else:
            self._pruning_fails = False
            self.mirror.forget([item.name for item in gone if item.removed])
            for item in gone:
                log.debug("the mirror drops %s: %s", item.name, item.reason)

    def offer(self, names: Iterable[str]) -> None:
        """Have checkpoints uploaded that were just committed. Cheap."""
        self.spared.clear()  # what is still needed is asked for again at this commit
        self._let_go.clear()
        for name in dict.fromkeys(names):
            self.mirror.offer(name)
        self.tell()

    def catch_up(self, extension: str, depth: int, there: Collection[str] = ()) -> None:
        """Offer what is here and not known to be there, oldest first: what an earlier process did not come to.

        Args:
            extension: what the names of checkpoints end in.
            depth: how many folders down they may lie.
            there: names of those that the mirror is known to have.

        """
        found = newest_first(scan(self._store, extension=extension, depth=depth))
        for item in reversed(found):
            if item.name not in there and item.role is not None:
                self.mirror.offer(item.name)

    def tell(self) -> None:
        """Warn of what has happened to the mirror since the last time."""
        for message in self.mirror.poll():
            log.warning(message)
            warn(message)

    def needs(self, name: str) -> bool:
        """Tell whether a checkpoint that retention drops has to stay for now: it is uploaded now, or next."""
        under_way, newest = self.mirror.needed()
        needed = name not in self._let_go and bool(tiers.spared([name], under_way, newest))
        if needed:
            self.spared.add(name)
        return needed

    def make_room(self, error: SaveError) -> list[str]:
        """After a save that failed: if the disk is full, return what stays here for the mirror alone, which is to go.

        The next save is worth more than the upload of what retention has dropped.
        """
        if error.errno not in _FULL or not self.spared:
            return []
        names = sorted(self.spared)
        self.spared.clear()
        self._let_go.update(names)
        log.warning("the disk is full: %s, kept for the mirror alone, will not be uploaded", ", ".join(names))
        return names

    def finish(self, stop: Callable[[], bool], limit: float | None = None) -> bool:
        """Wait for the uploads, and show how far they are; tell whether all is there.

        What is not is handed over: a warning says how much, and which command carries it on.

        Args:
            stop: asked all the time; True ends the wait.
            limit: seconds to wait at most, whatever the words say; None for what they say.

        """
        limits = [seconds for seconds in (limit, self._words.wait) if seconds is not None]
        if not self.mirror.status.settled:
            self._wait(stop, min(limits, default=None))
        status = self.mirror.close(wait=False)
        if self._owner is not None:  # the process that goes on with the rest may have it
            self._owner.give_up()
        self.tell()
        names = (name for name in (status.under_way, *status.queued) if name and name not in self.spared)
        left = [name for name in names if self._store.exists(name)]  # not what retention drops, or has dropped
        if left:
            self._hand_over(left, status)
        return not left

    def _wait(self, stop: Callable[[], bool], limit: float | None) -> None:
        begun = moved = time.monotonic()
        left = self.mirror.status.left
        with shown(left, f"uploading to {printable(self._words.url)}") as advance:

            def progress(done: int) -> None:
                nonlocal moved
                moved = time.monotonic()
                advance(done)

            while not stop():
                now = time.monotonic()
                if limit is not None and now - begun >= limit:
                    return
                status = self.mirror.status
                if status.failures and now - moved >= (ENDING if status.in_use else _STALLED):
                    return
                if self.mirror.wait(progress, timeout=_SLICE):
                    return
                self.tell()

    def _hand_over(self, names: Collection[str], status: Status) -> None:
        what = "1 checkpoint is" if len(names) == 1 else f"{len(names)} checkpoints are"
        why = f" The mirror says: {status.error}." if status.error else ""
        message = (
            f"{what} not yet on the mirror ({amount(status.left)} left).{why} To go on with that: "
            f"holdfast sync {_quoted(self._store.root)} {_quoted(self._words.url)}"
        )
        log.warning(message)
        warn(message)


def _quoted(path: str) -> str:
    from shlex import quote  # noqa: PLC0415 - for a message that is rare

    return quote(printable(path))
