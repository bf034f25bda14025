"""Saves behind the training's back: one at a time, in memory that is used again and again."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from holdfast.engine.carrying import carry_out, started
from holdfast.engine.commit import save_errors
from holdfast.engine.flight import Flight, Watched
from holdfast.engine.holding import Holding
from holdfast.engine.order import Order, SaveStats
from holdfast.errors import UNTOUCHED, SaveError
from holdfast.snapshot import Snapshot, capture
from holdfast.snapshot.copying import Copy
from holdfast.snapshot.image import HostImage
from holdfast.snapshot.template import Templates
from holdfast.telling import warn
from holdfast.threads import Work


class Saver(Holding[Flight, HostImage]):
    """Takes states and commits them from a thread. All methods are for the training thread.

    Args:
        images: how many states may be on their way at a time, each with host memory of its own size.

    """

    def __init__(self, images: int = 1) -> None:
        """Allocate nothing and start nothing yet."""
        super().__init__(HostImage, images)
        self._templates = Templates()
        self._tidying: deque[tuple[Work, str]] = deque()
        self._taking = False
        self.users: dict[int, Any] = {}  # of sharing.py

    def house(self, tensors: Iterable[torch.Tensor], stats: SaveStats) -> None:
        """Have parameters and an optimizer's state live in the image, once it is known where: no copy is made of them.

        Those that something else refers to stay where they are, and so do those that turn out to change
        outside the optimizer's step.
        """
        image = self._wait_for_image(stats)
        if self._rehearsals.any and not self._rehearsals.blind and len(self._images) == 1:
            image.move_in(tensors)

    def submit(self, order: Order) -> Flight:
        """Take the state; on return training may go on, and the rest happens behind it.

        Raises:
            SaveError: if the state cannot be taken.

        """
        path = order.store.path(order.name)
        if self._taking:
            msg = (
                f"the checkpoint {path} was not saved: it was asked for in the middle of another save, by a signal "
                f"handler most likely. Set a flag there, and save at the next step. {UNTOUCHED}"
            )
            raise SaveError(msg, path=path)
        self._taking = True
        try:
            return self._submit(order, path)
        finally:
            self._taking = False

    def _submit(self, order: Order, path: str) -> Flight:
        image = self._wait_for_image(order.stats)
        begun = time.perf_counter()
        with save_errors(path):
            snapshot = capture(order.state, templates=self._templates, front=image.front if order.steady else None)
            flight = self._take(path, snapshot, image, order)
        flight.earlier = self._flights[-1][0] if self._flights else None
        thread = threading.Thread(target=carry_out, args=(flight, image, order), name="holdfast-save")
        try:
            self._flights.append((flight, image))
            try:
                with save_errors(path):
                    image.copy_now(flight.taken)
            finally:  # not before: writing behind the copy would slow it by a fifth, and save less than that
                if not started(thread):
                    thread.run()
        except BaseException as error:
            flight.drop(error)  # if a signal came before the thread did
            raise
        order.stats.saves += 1
        order.stats.stall_seconds += time.perf_counter() - begun
        return flight

    def tidy(self, call: Callable[[], None], problem: str) -> None:
        """Do what may take its time, such as giving back the blocks of a large file, behind the training's back.

        An ``OSError`` becomes a warning that begins with ``problem``, on the training thread.
        """
        work = Work(call)
        if not started(threading.Thread(target=work.run, name="holdfast-tidy")):
            work.run()
        self._tidying.append((work, problem))

    def _see_to_tidying(self, *, wait: bool = False) -> None:
        while self._tidying and (wait or self._tidying[0][0].done):
            work, problem = self._tidying.popleft()
            try:
                work.join()
            except OSError as error:
                warn(f"{problem}: {error}")

    def poll(self) -> None:
        """Give back the memory of saves that are over. Cheap."""
        if self._tidying:
            self._see_to_tidying()
        super().poll()

    def wait(self) -> None:
        """Wait until everything is committed or has failed, and all is tidy."""
        super().wait()
        self._see_to_tidying(wait=True)

    def forget(self) -> None:
        """In a forked child: the threads are not here, and what they write is not ours."""
        super().forget()
        self._tidying.clear()

    def _over(self, flight: Flight, image: HostImage) -> None:
        super()._over(flight, image)
        image.keep_out(flight.strays)

    def _take(self, path: str, snapshot: Snapshot, image: HostImage, order: Order) -> Flight:
        later = self._rehearsals.later(snapshot, order.stepped)
        watched = [Watched.of(place, tensor) for place in later for tensor in snapshot.tensors[place]]
        watched += [  # what is trained has a count of its own where the state has its ``.data``
            Watched.of(place, tensor, ours=False)
            for place in later
            for tensor in order.stepped[snapshot.storages[place].data_ptr()]
        ]
        rehearsing = bool(later) and self._rehearsals.due(snapshot, order.subject)
        taken = image.take(snapshot, () if rehearsing else later, homes=later)
        if watched:
            self._watch()
        if not rehearsing:
            return Flight(path, snapshot, taken, watched, stats=order.stats)
        copies = [copy for copy in image.copies(snapshot) if copy.place in later and copy.place not in taken.resident]
        rehearsal = partial(_differing, image, copies, snapshot, image.digests(snapshot, taken.resident))
        return Flight(path, snapshot, taken, watched, order.subject, rehearsal, order.stats)


def _differing(image: HostImage, copies: list[Copy], snapshot: Snapshot, before: dict[int, int]) -> list[int]:
    """Return the places of the storages that have changed: of those that live in the image, by their digests."""
    now = image.digests(snapshot, before)
    return [*image.differing(copies), *(place for place, digest in before.items() if now[place] != digest)]
