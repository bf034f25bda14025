"""What savers behind the training have in common: host memory that is used again and again, and the saves in it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from holdfast.engine.carrying import started
from holdfast.engine.fences import watch_optimizers
from holdfast.engine.flight import Flight
from holdfast.engine.order import SaveStats
from holdfast.engine.rehearsals import Rehearsals
from holdfast.errors import ChangedStateError


class Image(Protocol):
    """Host memory for one save at a time."""

    @property
    def size(self) -> int:
        """The bytes that it occupies."""
        ...

    def reserve(self, size: int) -> None:
        """Have at least this much memory, its pages given by the system already."""
        ...

    def free(self) -> None:
        """Give the memory back."""
        ...


AnyFlight = TypeVar("AnyFlight", bound=Flight)
AnyImage = TypeVar("AnyImage", bound=Image)


class Holding(Generic[AnyFlight, AnyImage]):
    """Images, and which save is in which. All methods are for the training thread.

    Args:
        make: makes an image, which holds nothing yet.
        images: how many states may be on their way at a time, each with host memory of its own size.

    """

    def __init__(self, make: Callable[[], AnyImage], images: int) -> None:
        """Allocate nothing and start nothing yet."""
        self._make = make
        self._images = [make() for _ in range(images)]
        self._flights: list[tuple[AnyFlight, AnyImage]] = []
        self._rehearsals = Rehearsals()
        self._warming: threading.Thread | None = None
        self._hook: watch_optimizers | None = None
        _living.add(self)

    @property
    def busy(self) -> bool:
        """Tell whether a save would have to wait for an earlier one."""
        self.poll()
        return not self._free()

    @property
    def memory(self) -> int:
        """The bytes of host memory that saving holds, in this process."""
        return sum(image.size for image in self._images)

    def allow(self, images: int) -> None:
        """Let at least this many states be on their way at a time."""
        self._images += [self._make() for _ in range(images - len(self._images))]

    def warm(self, size: int) -> None:
        """Have the memory for a state of this size ready, from a thread, before it is first needed."""
        if self._warming is None and not self._flights:
            thread = threading.Thread(target=self._images[0].reserve, args=(size,), name="holdfast-memory")
            self._warming = thread if started(thread) else None

    def fence(self) -> None:
        """Wait until no save reads the tensors any more: the optimizer may change them."""
        for flight, _ in list(self._flights):
            if flight.open and flight.is_mine:
                begun = time.perf_counter()
                flight.fence()
                flight.stats.wait_seconds += time.perf_counter() - begun
        self.poll()

    def poll(self) -> None:
        """Give back the memory of saves that are over. Cheap."""
        for item in list(self._flights):
            flight, image = item
            flight.poll()
            if flight.done and not flight.open:
                self._flights = [other for other in self._flights if other is not item]
                self._over(flight, image)

    def wait(self) -> None:
        """Wait until everything is committed or has failed."""
        for flight, _ in list(self._flights):
            flight.wait()
        self.poll()

    def close(self) -> None:
        """Wait, and give the memory back. It can be used again."""
        self.wait()
        self._join_warming()
        for image in self._images:
            image.free()
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def forget(self) -> None:
        """In a forked child: the threads are not here, and what they write is not ours."""
        for flight, _ in self._flights:
            flight.abandon()
        self._flights = []
        self._warming = None
        self._images = [self._make() for _ in self._images]

    def _over(self, flight: AnyFlight, image: AnyImage) -> None:  # noqa: ARG002 - for those who look into it
        """Learn from a save that is over."""
        self._rehearsals.learn(flight)
        flight.stats.given_up += isinstance(flight.error, ChangedStateError)

    def _watch(self) -> None:
        """Have torch's optimizers wait at the fence."""
        self._hook = self._hook or watch_optimizers(self.fence)

    def _free(self) -> list[AnyImage]:
        taken = [image for flight, image in self._flights if not flight.done or flight.rehearsal is None]
        return [image for image in self._images if image not in taken]

    def _wait_for_image(self, stats: SaveStats) -> AnyImage:
        self._join_warming()
        self._end_rehearsals()
        if not self._free():
            begun = time.perf_counter()
            self._flights[0][0].wait()
            self.poll()
            stats.waited += 1
            stats.wait_seconds += time.perf_counter() - begun
        return self._free()[0]

    def _end_rehearsals(self) -> None:
        """Give up those that no optimizer step has ended: nothing is learned from them."""
        for flight, _ in self._flights:
            if flight.done:
                flight.wait()
        self.poll()

    def _join_warming(self) -> None:
        if self._warming is not None:
            self._warming.join()
            self._warming = None


_living: weakref.WeakSet[Holding[Any, Any]] = weakref.WeakSet()


def _forget_all() -> None:
    for holding in list(_living):
        holding.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
