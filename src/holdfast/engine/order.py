"""What is to be saved, and what saving has cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from holdfast.records import Facts
from holdfast.storage import Store


@dataclass
class SaveStats:
    """What saving has cost so far.

    Attributes:
        saves: how many were begun behind the training's back.
        committed: how many are on the disk, however they were saved.
        stall_seconds: how long training stood still while the state was taken, once it was collected; for a save that
            nothing goes on behind, until it was written.
        commit_seconds: how long the newest one that was written behind the training took, from its beginning until
            it was committed.
        waited: how many had to wait for an earlier one.
        wait_seconds: how long they did, and how long fences have held the optimizer back.
        skipped: how many were left out because an earlier one was not finished.
        given_up: how many were given up because the state changed before it was copied.

    """

    saves: int = 0
    committed: int = 0
    stall_seconds: float = 0.0
    waited: int = 0
    wait_seconds: float = 0.0
    skipped: int = 0
    given_up: int = 0
    commit_seconds: float = 0.0


@dataclass(frozen=True)
class Order:
    """What is to be saved.

    Attributes:
        store: where.
        name: under which name.
        state: what.
        facts: what the file says of itself.
        also: a second name, or "".
        over: what ``store.retire`` returned, whose blocks may be used, or "".
        stepped: what only an optimizer's step changes: the tensors on each storage, by its address; empty:
            copy all at once.
        subject: tells what is trained from other models of the same shape.
        steady: whether the storages' places in the file are to stay, though the skeleton's length changes.
        stats: where to count it.
        consent: asked when all bytes are written, just before the commit: if it raises, nothing is committed.
        after: called on the thread of the save once it is committed, and before that is told. It raises nothing.

    """

    store: Store
    name: str
    state: object
    facts: Facts
    also: str = ""
    over: str = ""
    stepped: Mapping[int, Sequence[torch.Tensor]] = field(default_factory=dict)
    subject: int = 0
    steady: bool = False
    stats: SaveStats = field(default_factory=SaveStats)
    consent: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
