"""What a run does behind the training, where a store is a trip away: removals, and the look at what people say.

Retention decides on the training's thread, in the order of the commits, and the same on every rank. What it has
decided about files behind a URL is carried out by a thread, which looks at each file, and at its pins, right before
it goes. Until the run knows that it is gone its name is given to no other save.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from holdfast import notes
from holdfast.errors import HoldfastError
from holdfast.front.forgetting import PINNED, take_far
from holdfast.front.planning import Run
from holdfast.front.reopening import Stamps
from holdfast.policy.ledger import Ledger
from holdfast.telling import warn
from holdfast.threads import Work

MOST = 8  # landings whose removals may be on their way: a server that does not come along holds up the next save


@dataclass(frozen=True)
class Left:
    """What became of removals, for all ranks.

    Attributes:
        stay: the names of files that stay, as somebody has pinned them.
        problems: what to warn of.

    """

    stay: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Leaving:
    """The files that one commit has made superfluous, on their way out.

    Args:
        names: the files, the same on every rank.
        before: what the run knew of them.
        work: on rank 0, what removes them.

    """

    def __init__(self, names: Iterable[str], before: Ledger, work: Removal | None = None) -> None:
        """Begin: the removals go on until they are done."""
        self.names = tuple(names)
        self._before, self._work = before, work
        if work is not None:
            work.begin()

    def look(self, *, wait: bool = False) -> Left | None:
        """Rank 0 only: return what became of them; None if that is not known yet."""
        if self._work is None:
            return Left()
        return self._work.result() if wait or self._work.done else None

    def settled(self, ledger: Ledger, left: Left) -> Ledger:
        """Return the ledger with those files that are still there."""
        for name in left.stay:
            ledger = ledger.with_again(name, self._before)
        return ledger


class Removal:
    """Rank 0 only: removes files behind a URL on a thread, one after the other, after those of an earlier removal.

    Args:
        run: the run.
        now: what is committed.
        before: what was when the removals were decided.
        names: the files.
        stamps: those of what this process has committed.
        protected: tells, right before a removal, the names of what the run resumed from.
        earlier: the removal before this one.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - what there is, and what must not go
        self,
        run: Run,
        now: Ledger,
        before: Ledger,
        names: Iterable[str],
        stamps: Stamps,
        protected: Callable[[], frozenset[str]],
        earlier: Leaving | None = None,
    ) -> None:
        """Begin nothing yet."""
        self._run, self._now, self._before, self._names = run, now, before, tuple(names)
        self._stamps, self._protected = stamps, protected
        self._earlier = None if earlier is None else earlier._work  # noqa: SLF001 - one module
        self._process = os.getpid()
        self._work = Work(self._remove)
        self._left = Left()

    def begin(self) -> None:
        """Start; where no thread can be started any more, do it here."""
        try:
            threading.Thread(target=self._work.run, name="holdfast-removal").start()
        except RuntimeError:  # out of threads, or the interpreter starts none any more
            self._work.run()

    @property
    def done(self) -> bool:
        """Tell whether it is over. In a forked child it is: the thread is the parent's, and so are the files."""
        return self._work.done or os.getpid() != self._process

    def result(self) -> Left:
        """Wait until it is over; return what became of it."""
        if os.getpid() == self._process:
            self._work.join()
        return self._left

    def _remove(self) -> None:
        if self._earlier is not None:
            self._earlier._work.wait()  # noqa: SLF001 - one class
            self._earlier = None
        for name in self._names:
            try:
                resumed = name in self._protected()
                why = PINNED if resumed else take_far(self._run, self._now, self._before, name, self._stamps)
            except (OSError, HoldfastError) as error:
                why = f"the old checkpoint {self._run.store.path(name)} could not be removed: {error}"
            if why == PINNED:
                self._left = replace(self._left, stay=(*self._left.stay, name))
                continue
            if why:
                self._left = replace(self._left, problems=(*self._left.problems, why))
            self._now = self._now.without(name)


class Hearing:
    """What people say of the checkpoints of a run, read by the thread of a save right after its commit."""

    def __init__(self, run: Run) -> None:
        """Read nothing yet."""
        self._run = run
        self._said: notes.Notes | None = None
        self._error: OSError | None = None

    def __call__(self) -> None:
        """Read it, on the thread of the save."""
        try:
            self._said = notes.read(self._run.store, self._run.depth)
        except OSError as error:
            self._error = error

    def said(self) -> notes.Notes | None:
        """Return what was read; None if nothing was.

        Raises:
            OSError: what the server has said instead.

        """
        if self._error is not None:
            raise self._error
        return self._said


def leaves_behind(run: Run, *, behind: bool) -> bool:
    """Tell whether a run removes behind the training: where it also saves so, and a removal is a trip."""
    return behind and not run.store.is_local


def tell(left: Left) -> None:
    """Warn of what could not be removed."""
    for problem in left.problems:
        warn(problem)
