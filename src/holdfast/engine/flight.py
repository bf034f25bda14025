"""One save between its decision and its commit.

The training thread takes the state and goes on; a thread of the save's own copies what may be copied
later, writes, and commits. They meet in two places: the *fence*, at which training waits until nothing
reads its tensors any more, and the *gate*, at which the commit waits until the training thread has
looked whether anything was changed behind the copy's back.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from holdfast.engine.order import SaveStats
from holdfast.errors import UNTOUCHED, ChangedStateError, SaveError
from holdfast.records import Manifest
from holdfast.snapshot import Snapshot
from holdfast.snapshot.image import HostImage, Taken
from holdfast.threads import wait_for

_LOOK = 0.05  # seconds between looks whether the training thread still lives


@dataclass(frozen=True)
class Watched:
    """A tensor whose storage is read while training goes on; its version and address when the state was taken.

    ``address`` is None for a tensor of the model or an optimizer itself, which may be given another storage.
    """

    place: int
    tensor: torch.Tensor
    version: int
    address: int | None

    @classmethod
    def of(cls, place: int, tensor: torch.Tensor, *, ours: bool = True) -> Watched:
        """Return the tensor as it is now; ``ours``: it is the state's."""
        return cls(place, tensor, tensor._version, tensor.untyped_storage().data_ptr() if ours else None)  # noqa: SLF001

    @property
    def changed(self) -> bool:
        """Tell whether an operation has written to it since, by torch's own count, or its memory is another."""
        if self.tensor._version != self.version:  # noqa: SLF001 - what autograd itself goes by
            return True
        return self.address is not None and self.tensor.untyped_storage().data_ptr() != self.address


@dataclass
class Flight:
    """What is known of one save. Up to ``abandon`` its methods are for the training thread.

    Attributes:
        path: what is being saved.
        subject, stats: as the order has them.
        error: why it was not committed.
        link_error: why its second name could not be made.
        manifest: what it says of itself.
        committed: whether it is there, under its first name.
        stamp: the store's stamp of it, right after its commit.
        changed: names of tensors that were changed before they were copied.
        strays: where their storages lie.
        unseen: names of tensors that were changed in a way that torch does not count (``.data``).
        rehearsal: of a save that copied at once what could have been copied later: returns the places
            of the storages that hold something else by now than what was saved.
        fenced: whether an optimizer's step has come to the fence.
        earlier: the save that has to be committed before it, until it is.
        seconds: how long it took from its order to its end; 0 until then.

    """

    path: str
    snapshot: Snapshot
    taken: Taken
    watched: list[Watched] = field(default_factory=list)
    subject: int = 0
    rehearsal: Callable[[], list[int]] | None = None
    stats: SaveStats = field(default_factory=SaveStats)
    error: SaveError | None = None
    link_error: SaveError | None = None
    manifest: Manifest | None = None
    committed: bool = False
    stamp: tuple[int, ...] | None = None
    changed: tuple[str, ...] = ()
    strays: tuple[int, ...] = ()
    unseen: tuple[str, ...] = ()
    fenced: bool = False
    earlier: Flight | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Let a save through that is not watched."""
        self.begun = time.perf_counter()
        self._owner = threading.current_thread()
        self._read = threading.Event()
        self._looked = threading.Event()
        self._done = threading.Event()
        self._claim = threading.Lock()
        self._begun = time.perf_counter()
        if not self.watched:
            self._looked.set()

    @property
    def done(self) -> bool:
        """Tell whether it is committed or has failed."""
        return self._done.is_set()

    @property
    def open(self) -> bool:
        """Tell whether the fence is still up."""
        return not self._looked.is_set()

    @property
    def is_mine(self) -> bool:
        """Tell whether this is the thread that asked for it."""
        return threading.current_thread() is self._owner

    def fence(self) -> None:
        """Wait until the tensors may be changed: call before the optimizer's step."""
        if self._looked.is_set():
            return
        self.fenced = True
        if self.rehearsal is not None:
            self.unseen = tuple(self._names(self.rehearsal()))
        self.let_go()

    def poll(self) -> None:
        """Let the commit go on, if only this thread's look at the tensors is missing."""
        if self._read.is_set() and not self._looked.is_set() and self.rehearsal is None:
            self.taken.crossing.hold()
            self._look()

    def wait(self) -> None:
        """Wait until it is committed or has failed."""
        flight: Flight | None = self
        while flight is not None:  # those before it wait for this thread's look, and it waits for them
            if flight.open:
                flight.let_go()
            flight = flight.earlier
        wait_for(self._done)

    def let_go(self) -> None:
        """Wait until nothing reads the tensors, and have the commit go on."""
        self.taken.crossing.hold()
        if self.taken.later or self.taken.resident:
            wait_for(self._read)
        self._look()

    def abandon(self) -> None:
        """In a forked child, where the save's thread is not: it is the parent's."""
        msg = f"the checkpoint {self.path} was not saved by this process, but by the one that it was forked from"
        self.error = SaveError(f"{msg}. {UNTOUCHED}", path=self.path)
        self._read, self._looked, self._done = (threading.Event() for _ in range(3))
        self._looked.set()
        self.finish()

    def drop(self, error: BaseException) -> None:
        """Give the save up, unless its thread has begun."""
        if not self.claim():
            return
        self.error = SaveError(
            f"the checkpoint {self.path} was not saved: it was interrupted by {type(error).__name__}. {UNTOUCHED}",
            path=self.path,
        )
        self._look()
        self.finish()

    def claim(self) -> bool:
        """Tell whether the caller is the first who wants to carry it out, or to give it up."""
        return self._claim.acquire(blocking=False)

    # What follows is for the thread of the save.

    def keep(self, manifest: Manifest) -> None:
        """Remember what is about to be committed."""
        self.manifest = manifest

    def copy_rest(self, image: HostImage) -> None:
        """Make the copies that were left for later."""
        with contextlib.suppress(Exception):  # told to the thread that writes, which fails by it
            image.copy_rest(self.taken)
        if not self.taken.resident:
            self._read.set()

    def gate(self) -> None:
        """Wait for the training thread's look, or for its end.

        Raises:
            ChangedStateError: naming the tensors that were changed too early.

        """
        self._read.set()
        if self.rehearsal is not None and not self.taken.resident:
            return  # all of it was copied before training went on
        if self.is_mine:  # the system starts no more threads
            self._look()
        while not self._looked.wait(_LOOK):
            if not self._owner.is_alive():
                self._look()
        if self.changed:
            raise ChangedStateError(self.path, self.changed)

    def join(self) -> None:
        """Wait until it is over, from another save's thread."""
        wait_for(self._done)

    def finish(self) -> None:
        """Say that all is over, whatever became of it; let go of the tensors."""
        self.earlier = None
        self.seconds = time.perf_counter() - self._begun
        self._read.set()
        self._done.set()

    def _look(self) -> None:
        places = [item.place for item in self.watched if item.changed]
        self.changed = tuple(self._names(places))
        self.strays = tuple(self.snapshot.storages[place].data_ptr() for place in places)
        self.watched.clear()
        self._looked.set()

    def _names(self, places: list[int]) -> list[str]:
        """Return the names of the tensors that view these storages."""
        if not places:
            return []
        wanted = {self.snapshot.storages[place]._cdata for place in places}  # noqa: SLF001
        dense = [(name, tensor) for name, tensor in self.snapshot.named if tensor.layout is torch.strided]
        names = [name for name, tensor in dense if tensor.untyped_storage()._cdata in wanted]  # noqa: SLF001
        return names or [f"the storage data/{place}" for place in places]
