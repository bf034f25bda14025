"""Several checkpointers of one process on one directory are one run: their saves have one order."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from holdfast.front.planning import Run, new_run_id


class Sibling(Protocol):
    """What a checkpointer shows to those beside it."""

    @property
    def dirpath(self) -> str:
        """The directory it saves to."""
        ...

    @property
    def run(self) -> Run:
        """The run it belongs to."""
        ...

    @property
    def sequence(self) -> int:
        """How many saves the run had asked for by its newest."""
        ...


_open: WeakSet[Sibling] = WeakSet()


def open_beside(one: Sibling) -> None:
    """Let those that are opened later find this one."""
    _open.add(one)


def close_beside(one: Sibling) -> None:
    """Let those that are opened later begin a run of their own."""
    _open.discard(one)


def shared_run_id(dirpath: str, owner: str) -> str:
    """Return the identifier of the run on this directory; a new one if this owner already has one there."""
    here = [other for other in _open if other.dirpath == dirpath]
    if any(other.run.owner == owner for other in here):
        return new_run_id()
    return next((other.run.run for other in here), "") or new_run_id()


def newest_sequence(one: Sibling) -> int:
    """Return how many saves the run of this one has asked for, by whichever checkpointer."""
    return max([one.sequence, *(other.sequence for other in _open if other.run.run == one.run.run)])


def has_sibling(one: Sibling, owner: str) -> bool:
    """Tell whether another checkpointer on this directory saves under this owner."""
    return any(other is not one and other.dirpath == one.dirpath and other.run.owner == owner for other in _open)


def beside(one: Sibling) -> list[Sibling]:
    """Return the others that are open on the same directory, ordered by their owners."""
    others = [other for other in _open if other is not one and other.dirpath == one.dirpath]
    return sorted(others, key=lambda other: other.run.owner)
