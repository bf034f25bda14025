"""A place belongs to one run at a time: a directory of this machine by a lock, a remote prefix by a claim."""

from __future__ import annotations

import logging
import sys
from typing import Protocol, runtime_checkable

from holdfast.storage import run_lock
from holdfast.storage.contract import Store

log = logging.getLogger("holdfast")

_CLAIMS = "holdfast.storage.remote.claims"


class Owner(Protocol):
    """The right to save to a place."""

    def give_up(self) -> None:
        """Give it up; the last user of this process leaves nothing behind. Idempotent; nothing in a forked child."""
        ...


@runtime_checkable
class Claimable(Protocol):
    """A store that a run can have to itself; those of other machines' processes are told."""

    def claim(self, run: str, since: str) -> Owner:
        """Take the root for this process, at most for as long as a dead run's claim lasts.

        Raises:
            DirectoryInUseError: if a run that lives has it.

        """
        ...

    @property
    def is_claimed_here(self) -> bool:
        """Whether this very process has it."""
        ...


def own_place(store: Store, *, run: str, since: str) -> Owner | None:
    """Take a store's root for this process.

    Returns None where the place has no locks, which is warned of once, and where nothing may be written: the first
    save will say why. For a remote store it may take as long as the lease of a run that seems to be dead.

    Raises:
        DirectoryInUseError: if another process has it.
        OSError: if a remote store does not answer.

    """
    if store.is_local:
        return run_lock.own_directory(store.root, run=run, since=since)
    if not isinstance(store, Claimable):
        return None
    try:
        return store.claim(run, since)
    except (PermissionError, FileNotFoundError, NotImplementedError) as error:
        log.debug("%s cannot be claimed: %s", store.root, error)
        return None


def is_own_place(store: Store) -> bool:
    """Tell whether this very process has a store's root already; without taking it, and without touching anything."""
    if store.is_local:
        return run_lock.is_owned_here(store.root)
    return isinstance(store, Claimable) and store.is_claimed_here


def give_up_all() -> None:
    """Give up every place of this process, because it is about to end."""
    run_lock.give_up_all()
    if _CLAIMS in sys.modules:  # else there are none
        from holdfast.storage.remote.claims import give_up_all_claims  # noqa: PLC0415 - see above

        give_up_all_claims()
