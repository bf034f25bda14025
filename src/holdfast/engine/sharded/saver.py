"""Sharded saves behind the training's back, on every rank alike."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from holdfast.engine.carrying import copy_beside, started
from holdfast.engine.commit import save_errors
from holdfast.engine.holding import Holding
from holdfast.engine.order import Order
from holdfast.engine.sharded import metadata as dcp_metadata
from holdfast.engine.sharded.committing import (
    Accounts,
    Committing,
    Shard,
    Spans,
    forget_blocks,
    places,
    with_keys,
    write_shard,
)
from holdfast.engine.sharded.flying import ShardedFlight, grounded, rank_part, watch
from holdfast.engine.sharded.image import Part, ShardImage, Staged, ordered
from holdfast.engine.sharded.parts import Values
from holdfast.engine.sharded.planning import Planned, Plans
from holdfast.errors import UNTOUCHED, SaveError
from holdfast.ranks import Ranks
from holdfast.records import Manifest
from holdfast.storage.marks import mark_of


class ShardedSaver(Holding[ShardedFlight, ShardImage]):
    """Takes states of which each rank has a part, and commits them from a thread.

    All methods are for the training thread; ``submit`` is called on every rank, in the same order. What the others
    say is of this rank.

    Args:
        ranks: those that train.
        images: how many states may be on their way at a time, each with host memory of its own size.

    """

    def __init__(self, ranks: Ranks, images: int = 1) -> None:
        """Allocate nothing and start nothing yet."""
        super().__init__(ShardImage, images)
        self.ranks = ranks
        self._plans = Plans()
        self._values = Values()
        self._accounts = Accounts()
        self._told: tuple[int, Spans | None] = (0, None)  # of the last plan: what rank 0 knows of our file

    def submit(self, order: Order, extra: Mapping[str, bytes] | None = None) -> ShardedFlight:
        """Take this rank's part of the state; on return training may go on, and the rest happens behind it.

        What goes wrong from here on, on any rank, is the flight's error on every rank.

        Args:
            order: what is saved; of ``state`` each rank gives its own, of all else the same.
            extra: further files of the checkpoint, by name; those of rank 0 are written.

        Raises:
            SaveError: the same on every rank, if the ranks' states do not fit together.
        """
        path = order.store.path(order.name)
        image = self._wait_for_image(order.stats)
        begun = time.perf_counter()
        planned = self._plans.plan(self.ranks, order.state, path)
        staged: Staged | SaveError
        try:
            with save_errors(path):
                parts = ordered(self._values.parts(planned.planner, planned.items, planned.planner.state_dict))
                flight, staged = self._take(path, parts, image, order)
        except SaveError as error:
            flight, staged = grounded(path, order.stats), error  # the other ranks learn of it behind the training
        latest = _latest.get(self.ranks)
        flight.earlier = latest() if latest is not None else None
        _latest[self.ranks] = weakref.ref(flight)  # its thread holds it while there is anything to wait for
        self._flights.append((flight, image))
        job = _Job(self, flight, image, staged, replace(order, state=None), planned, with_keys(extra, planned.keys))
        job.begun = begun
        thread = threading.Thread(target=job.run, name="holdfast-shard")
        if not started(thread):
            thread.run()
        order.stats.saves += 1
        order.stats.stall_seconds += time.perf_counter() - begun
        return flight

    def _take(self, path: str, parts: list[Part], image: ShardImage, order: Order) -> tuple[ShardedFlight, Staged]:
        """Copy the state, or what of it cannot be copied later; see ``Saver``, whose rules these are."""
        snapshot = rank_part(parts)
        later = self._rehearsals.later(snapshot, order.stepped)
        watched = watch(snapshot, later, order.stepped)
        rehearsing = bool(later) and self._rehearsals.due(snapshot, order.subject)
        staged = image.stage(parts, () if rehearsing else later, later)
        if watched:
            self._watch()
        rehearsal = partial(image.differing, staged.watched) if rehearsing else None
        flight = ShardedFlight(path, snapshot, staged.taken, watched, order.subject, rehearsal, order.stats)
        return flight, staged

    # What follows is for the thread of a save; they run one after the other.

    def known(self, planned: Planned) -> Spans | None:
        """Return where this rank's items lie as far as rank 0 knows."""
        version, spans = self._told
        return spans if version == planned.version else None

    def told(self, planned: Planned, spans: Spans | None) -> None:
        """Remember what rank 0 knows now of where this rank's items lie."""
        self._told = (planned.version, spans)

    def metadata(self, planned: Planned, shards: list[Shard]) -> bytes:
        """Return DCP's metadata, on rank 0; those of the last save under the mark of this one, if nothing has moved."""
        accounts, mark = self._accounts, mark_of(shards[0].record.name)
        if accounts.version == planned.version and all(shard.spans is None for shard in shards):
            return accounts.under(mark)
        old = accounts.spans if accounts.version == planned.version else [()] * len(shards)
        spans = [before if shard.spans is None else shard.spans for shard, before in zip(shards, old, strict=True)]
        assert planned.metadata is not None  # noqa: S101 - this is rank 0
        data = dcp_metadata.encode(planned.metadata, places(planned.all_items, shards, spans))
        self._accounts = Accounts(planned.version, spans, data, mark)
        return data


@dataclass
class _Job:
    """The thread of one save: write, commit, link. Those of the same ranks follow each other, on every rank alike."""

    saver: ShardedSaver
    flight: ShardedFlight
    image: ShardImage
    staged: Staged | SaveError
    order: Order
    planned: Planned
    extra: Mapping[str, bytes]
    spans: Spans | None = None
    begun: float = 0.0

    def run(self) -> None:
        flight, order = self.flight, self.order
        copy_beside(flight, self.image)
        if flight.earlier is not None:
            flight.earlier.join()
        try:
            ranks = self.saver.ranks.behind
            commit = Committing(ranks, order, self.extra)
            outcome = commit.run(self._write, self._seal, self.planned.metadata)
            if ranks.leads:
                forget_blocks(order)
                if order.after is not None:
                    order.after()
        except SaveError as error:
            flight.error = error
        except BaseException as error:  # noqa: BLE001 - told on the training thread
            msg = f"the checkpoint {flight.path} was not saved: {type(error).__name__}: {error}. {UNTOUCHED}"
            flight.error = SaveError(msg, path=flight.path)
        else:
            self.saver.told(self.planned, self.spans)
            order.stats.commit_seconds = time.perf_counter() - self.begun
            flight.committed, flight.stamp, flight.link_error = True, outcome.stamp, outcome.link_error
            facts = replace(order.facts, ranks=ranks.size)
            infos = () if self.planned.metadata is None else dcp_metadata.infos(self.planned.metadata)
            flight.manifest = Manifest(facts, outcome.records, infos)
        finally:
            flight.finish()

    def _write(self, name: str) -> Shard:
        if isinstance(self.staged, SaveError):
            raise self.staged
        known = self.saver.known(self.planned)
        self.saver.told(self.planned, None)  # until this is committed
        shard = write_shard(self.order.store, name, self.image, self.staged, known, self.flight.gate)
        self.spans = known if shard.spans is None else shard.spans
        return shard

    def _seal(self, shards: list[Shard]) -> bytes:
        return self.saver.metadata(self.planned, shards)


def write_sharded(ranks: Ranks, order: Order, extra: Mapping[str, bytes] | None = None) -> Manifest:
    """Commit a state of which each rank has a part; on return it is durable. Called on every rank.

    Raises:
        SaveError: the same on every rank; nothing has changed then.

    """
    saver = ShardedSaver(ranks)
    try:
        flight = saver.submit(order, extra)
        flight.wait()
    finally:
        saver.close()
    if flight.error is not None:
        raise flight.error
    assert flight.manifest is not None  # noqa: S101 - it is committed
    return flight.manifest


_latest: weakref.WeakKeyDictionary[Ranks, weakref.ref[ShardedFlight]] = weakref.WeakKeyDictionary()  # of all savers


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_latest.clear)
