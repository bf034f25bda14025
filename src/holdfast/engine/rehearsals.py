"""What may be copied while training goes on: learned from saves at which everything was copied at once.

A rehearsal is such a save, at whose end, the fence before the optimizer's step, what was saved is compared
with what is there: whatever differs changes outside the optimizer's step.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from holdfast.engine.flight import Flight
from holdfast.snapshot import Snapshot
from holdfast.telling import warn

_EVERY = 100  # saves: what is changed in ways that torch does not count may begin at any time

log = logging.getLogger("holdfast")


class Rehearsals:
    """What was learned of the states of this process.

    Attributes:
        blind: whether something changes tensors in a way that cannot be seen.

    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.blind = False
        self._changing: set[str] = set()
        self._held_for: object = None
        self._since = 0

    @property
    def any(self) -> bool:
        """Tell whether any was ended by an optimizer's step."""
        return self._held_for is not None

    def due(self, snapshot: Snapshot, subject: int) -> bool:
        """Tell whether the next overlapped save of this state has to be a rehearsal."""
        self._since += 1
        return self._held_for != (subject, snapshot.shape) or self._since >= _EVERY

    def later(self, snapshot: Snapshot, stepped: Collection[int]) -> set[int]:
        """Return the places of the storages that may be copied while training goes on."""
        if not stepped or self.blind:
            return set()
        changing = {tensor.untyped_storage().data_ptr() for name, tensor in snapshot.named if name in self._changing}
        return {
            place
            for place in snapshot.tensors
            if (address := snapshot.storages[place].data_ptr()) in stepped and address not in changing
        }

    def learn(self, flight: Flight) -> None:
        """Take note of what changes between a save and the optimizer's step: it is copied at once from now on.

        Only a rehearsal that an optimizer's step has ended tells that copies may be made until then: with
        an optimizer that passes no fence, every save is a rehearsal.
        """
        if flight.rehearsal is not None:
            if not flight.fenced:
                return
            self._held_for, self._since = (flight.subject, flight.snapshot.shape), 0
            if flight.changed:
                log.info("copied at once, as they change outside the optimizer's step: %s", ", ".join(flight.changed))
        self._changing.update(flight.changed)
        unseen = [name for name in flight.unseen if name not in flight.changed]
        if unseen:
            self.blind = True
            warn(
                f"{unseen[0]} was changed between a save and the next optimizer step in a way that torch does not "
                "count (through `.data`, most likely): from now on every save copies the whole state at once"
            )
