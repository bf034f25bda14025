"""A directory belongs to one run at a time: taken before anything in it is touched, given up at the end."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from holdfast.front.planning import Run
from holdfast.storage import own_place

if TYPE_CHECKING:
    Owned = weakref.finalize[Any, Any]
else:
    Owned = weakref.finalize


def own(user: object, run: Run) -> Owned | None:
    """Rank 0 only: take the run's directory for this process.

    Returns what gives it up when it is called; so does the end of the user's life, and of the interpreter. None
    where there is nothing to take: a directory without locks, one that cannot be made.

    Raises:
        DirectoryInUseError: if another process has it.
        OSError: if a remote store does not answer.

    """
    since = run.clock.now().isoformat(timespec="seconds")
    ownership = own_place(run.store, run=run.run, since=since)
    return None if ownership is None else weakref.finalize(user, ownership.give_up)
