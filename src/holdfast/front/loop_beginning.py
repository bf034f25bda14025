"""The part of ``Checkpointer`` that begins a save: takes the state, and hands it to who writes it.

What every rank has is written by rank 0 as one file. What lies in parts on many ranks is written by all of them as
one directory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from holdfast.engine import Order, Saver, SaveStats, lease, release, write_checkpoint
from holdfast.engine.shard_sharing import lease_shards, release_shards
from holdfast.errors import SaveError
from holdfast.front.costs import stalled
from holdfast.front.leaving import Hearing, leaves_behind
from holdfast.front.loop_sharded import check_alike, laid_out
from holdfast.front.loop_shares import RANKS, Own, gather, take
from holdfast.front.loop_state import Parts, collect
from holdfast.front.noted import consent_to
from holdfast.front.planning import Plan, Run
from holdfast.front.preemption import hurried
from holdfast.front.preflight import Preflight
from holdfast.front.remaining import Remaining
from holdfast.front.save_mode import SaveMode
from holdfast.front.saving import link
from holdfast.policy.ledger import Ledger
from holdfast.ranks import Ranks
from holdfast.records import RANKED
from holdfast.snapshot import is_sharded, stepped, stepped_tensors
from holdfast.telling import warn

if TYPE_CHECKING:
    from holdfast.engine.sharded.saver import ShardedSaver

log = logging.getLogger("holdfast")


class UnderWay(Protocol):
    """A save that has begun."""

    @property
    def done(self) -> bool:
        """Tell whether it is committed or has failed."""
        ...

    @property
    def committed(self) -> bool:
        """Tell whether it is there, under its first name."""
        ...

    @property
    def error(self) -> SaveError | None:
        """Why it was not committed."""
        ...

    @property
    def link_error(self) -> SaveError | None:
        """Why its second name could not be made."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took, from its order to its commit."""
        ...

    @property
    def stamp(self) -> tuple[int, ...] | None:
        """The store's stamp of it, right after its commit."""
        ...

    def wait(self) -> None:
        """Wait until it is committed or has failed."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a save.

    Attributes:
        committed: whether it is there.
        linked: whether its second name is, if it was to have one.
        error: what went wrong.

    """

    committed: bool
    linked: bool
    error: SaveError | None = None


class LoopBeginning:
    """Begins saves.

    Attributes:
        stats: what saving has cost so far; on rank 0, and where the state is sharded on every rank.

    """

    stats: SaveStats
    _run: Run
    _ledger: Ledger
    _parts: Parts
    _mode: SaveMode
    _ranks: Ranks
    _remaining: Remaining
    _alone: bool
    _leads: bool

    def _init_beginning(self) -> None:
        self.stats = SaveStats()
        self._saver: Saver | None = None
        self._shards: ShardedSaver | None = None
        self._cut: bool | None = None  # whether the state is sharded, once that is known
        self._flights: deque[UnderWay] = deque()  # one for each plan that waits, where this rank writes
        self._spare = ""
        self._preflight = Preflight()  # rank 0 only
        self._hearings: dict[str, Hearing] = {}  # of the saves on their way, by their names; rank 0 only

    def _open_saver(self) -> Saver:
        if self._saver is None:
            self._saver = lease(self, self._mode.images)
        return self._saver

    def _open_shards(self) -> ShardedSaver:
        if self._shards is None:
            self._shards = lease_shards(self, self._ranks, self._mode.images)
        return self._shards

    def _let_savers_go(self) -> None:
        saver, self._saver = self._saver, None
        shards, self._shards = self._shards, None
        if hurried():
            return
        if saver is not None:
            release(self, saver)
        if shards is not None:
            release_shards(self, shards)

    def _is_cut(self) -> bool:
        """Tell whether the state is sharded: on any rank is on all. Every rank calls it; the first time they talk."""
        if self._cut is None:
            state = collect(self._parts, weights_only=False, loop={})
            self._cut = bool(self._ranks.highest([int(is_sharded(state))])[0])
            if self._cut:
                check_alike(self._parts, self._ranks)
                if self._leads and self._mode.without_shards:
                    warn(self._mode.without_shards)
        return self._cut

    def _begin_anywhere(self, plan: Plan, loop: Mapping[str, int | str]) -> Outcome | None:
        """Save, or begin to; return what became of it if that is known. Every rank calls it."""
        grad = torch.is_grad_enabled()
        with torch.inference_mode(mode=False), torch.set_grad_enabled(grad):  # there a DTensor has no state to give
            if self._is_cut():
                return self._begin_shards(plan, loop)
            own, shares = self._shares()
            begun: Outcome | None = self._agree(lambda: self._begin(plan, loop, own, shares))
            return begun

    def _begin_shards(self, plan: Plan, loop: Mapping[str, int | str]) -> Outcome | None:
        """Every rank: take this rank's part of the state."""
        weights_only = self._run.settings.save_weights_only
        own = take(self._parts, self._ranks, weights_only=weights_only)
        if self._leads:
            self._check_room(plan)

        def lay_out() -> dict[str, Any]:
            state = collect(self._parts, weights_only=weights_only, loop=loop, rng=own.rng, stateful=own.stateful)
            return laid_out(state, own, self._ranks, weights_only=weights_only)

        order = self._order(plan, self._ranks.together(lay_out, at="the state of a save"))
        try:
            flight = self._open_shards().submit(order)
        except SaveError as error:
            return Outcome(committed=False, linked=False, error=error)
        if self._mode.async_save:
            self._flights.append(flight)
            return None
        with stalled(self.stats):
            flight.wait()
        if self._leads:
            self._warn(self._remaining.learn(flight.seconds if flight.committed else 0.0))
        return Outcome(flight.committed, flight.link_error is None, flight.error or flight.link_error)

    def _shares(self) -> tuple[Own | None, list[dict[str, Any]]]:
        """Return what this rank has for itself, and on rank 0 what each of several has."""
        if self._alone or self._run.settings.save_weights_only:
            return None, []
        own = take(self._parts, self._ranks)
        return own, gather(own, self._ranks)

    def _begin(
        self, plan: Plan, loop: Mapping[str, int | str], own: Own | None, shares: list[dict[str, Any]]
    ) -> Outcome | None:
        """Rank 0 only: save, or begin to; return what became of it if that is known."""
        store = self._run.store
        weights_only = self._run.settings.save_weights_only
        if self._mode.zero_copy:
            self._open_saver().house(stepped_tensors(self._parts.model, self._parts.optimizers), self.stats)
        taken = {} if own is None else {"rng": own.rng, "stateful": own.stateful}
        state = collect(self._parts, weights_only=weights_only, loop=loop, **taken)
        if shares:
            state[RANKS] = shares
        self._check_room(plan)
        spare, self._spare = self._spare, ""
        order = self._order(plan, state, spare)
        try:
            if self._mode.async_save:
                self._flights.append(self._open_saver().submit(order))
                return None
            with stalled(self.stats) as lasted:
                write_checkpoint(store, plan.primary, state, order.facts, over=spare, consent=order.consent)
            self._warn(self._remaining.learn(lasted()))
        except SaveError as error:
            self._spare = spare if spare and store.exists(spare) else ""  # nothing was written over it
            return Outcome(committed=False, linked=False, error=error)
        try:
            if plan.also:
                link(store, plan.primary, plan.also)
        except SaveError as error:
            return Outcome(committed=True, linked=False, error=error)
        return Outcome(committed=True, linked=True)

    def _check_room(self, plan: Plan) -> None:
        """Rank 0 only: say whether there is likely to be no room."""
        under_way = sum(not flight.done for flight in self._flights)
        self._warn(self._preflight.before(self._run, plan.primary, under_way))

    def _order(self, plan: Plan, state: object, spare: str = "") -> Order:
        later = self._mode.overlap if self._cut else self._mode.reads_on
        return Order(
            self._run.store,
            plan.primary,
            state,
            replace(plan.facts, ranks=self._ranks.size),
            plan.also,
            over=spare,
            stepped=stepped(self._parts.model, self._parts.optimizers) if later else {},
            subject=id(self._parts.model),
            steady=self._mode.zero_copy,
            stats=self.stats,
            consent=self._consent(plan),
            after=self._hearing_at(plan),
        )

    def _consent(self, plan: Plan) -> Callable[[], None] | None:
        return consent_to(self._run, self._ledger, plan.primary) if RANKED in plan.names else None

    def _hearing_at(self, plan: Plan) -> Hearing | None:
        """Rank 0 only: have the thread of the save read what people say, where that is a trip."""
        if self._leads and leaves_behind(self._run, behind=self._mode.async_save):
            self._hearings[plan.primary] = Hearing(self._run)
        return self._hearings.get(plan.primary)

    def _agree(self, decide: Callable[[], Any]) -> Any:
        return self._ranks.agree(decide)

    def _warn(self, message: str) -> None:
        if message:
            log.warning(message)
            warn(message)
