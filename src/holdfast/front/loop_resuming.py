"""The part of ``Checkpointer`` that goes on from a checkpoint."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from holdfast.directories import is_sharded_at
from holdfast.engine import quiesce
from holdfast.errors import LoadError
from holdfast.front.loop_saving import LoopSaving
from holdfast.front.loop_searching import Reading, Search
from holdfast.front.loop_shares import put_back
from holdfast.front.loop_words import identity_of
from holdfast.front.passing import PassingOver, checked_on_damage
from holdfast.front.planning import Run, names_of, with_notes
from holdfast.front.reopening import Remembered, earlier_owners, reopen
from holdfast.front.second_tier import SecondTier
from holdfast.front.siblings import beside, has_sibling
from holdfast.front.standing import standing
from holdfast.front.start import Skipped, Start
from holdfast.policy.ledger import Ledger
from holdfast.policy.tiers import MIRROR
from holdfast.records import Facts, Lineage
from holdfast.scanning import Found, look, scan, scan_aside
from holdfast.storage import open_store, split_path
from holdfast.telling import warn

log = logging.getLogger("holdfast")


class _Choice(NamedTuple):
    """What rank 0 found to resume from, and on the way there."""

    path: str | None
    reason: str
    skipped: tuple[Skipped, ...] = ()
    damaged: frozenset[str] = frozenset()
    tier: str | None = None


class LoopResuming(LoopSaving):
    """Finds the newest whole checkpoint, puts its state back, and takes over the files of its run."""

    dirpath: str
    allow: tuple[Any, ...]
    on_damage: str
    _step: int
    _epoch: int
    _batches: int
    _start_path: str
    _inherited: frozenset[str] = frozenset()  # the owners whose files were taken over
    _damaged: frozenset[str] = frozenset()  # in the directory, found at the resume: they are no checkpoints
    _second: SecondTier | None = None  # what the mirror had at the resume; rank 0 only

    @property
    def run(self) -> Run:
        """What stays the same while it saves."""
        return self._run

    @property
    def sequence(self) -> int:
        """How many saves the run had asked for by the newest of this checkpointer."""
        return self._ledger.sequence

    def resume(
        self, path: str | os.PathLike[str] | None = None, *, on_damage: Literal["skip", "raise"] | None = None
    ) -> Start:
        """Restore the newest whole checkpoint of the directory or of the mirror, or the one given; or start afresh.

        What only the mirror has is fetched into the directory first, and verified. Where both have the newest, the one
        here is taken; the mirror's is taken in its place if it is damaged. A mirror that cannot be asked is warned of.

        The answer is a report as well: what was restored, what could not be (that is warned of, too), and which
        checkpoints were passed over. As text it goes to the logger ``holdfast``.

        Args:
            path: a checkpoint, in this directory or elsewhere; None looks for the newest whole one.
            on_damage: what to do on the way to the newest whole one; None: as the constructor was told.
                ``"skip"`` passes damaged checkpoints over, each with a warning. Those that are proven to
                be damaged, lie in this directory and are of the run that goes on are set aside: ``x.ckpt``
                becomes ``x.ckpt.damaged``, which is no checkpoint any more and is never removed.
                ``"raise"`` stops at the first that cannot be read whole. Nothing has changed then.

        Raises:
            DamagedCheckpointError: if the given checkpoint is damaged, or with ``on_damage="raise"`` one that
                would be passed over. Model and optimizer are as they were.
            LoadError: if the given checkpoint is missing, unsafe or not of this model; if none is whole
                and model and optimizer hold what was read of one before its damage was found; if there is nothing
                here and the mirror cannot be asked; or if the newest is there and cannot be fetched.

        """
        self._doing = "resume()"
        on_damage_now = self.on_damage if on_damage is None else checked_on_damage(on_damage)
        self._settle(wait=True)
        quiesce()  # other checkpointers' saves, too, may be reading what is written over
        reading = Reading(self._parts, self._ranks, self.allow)
        self._second = self._open_second() if self._leads else None
        if path is None:
            choice, state = self._read_newest(reading, on_damage_now)
        else:
            chosen, in_shards = self._agree(lambda: self._asked_for(os.fspath(path)))
            choice = _Choice(chosen, "the checkpoint that was asked for")
            state = reading.read(chosen, in_shards=in_shards, careful=True)
        self._damaged = choice.damaged
        if choice.path is None:
            start = Start(reason=choice.reason, skipped=choice.skipped)
        else:
            start = self._begin_at(choice.path, choice, state)
        if self._leads:
            log.info("%s", start)
            self._catch_up()
        return start

    def _catch_up(self) -> None:
        """Rank 0 only: have uploaded what an earlier process did not come to; what it was fetching can go by now."""
        if self._uploads is not None and self._second is not None:
            self._run.store.sweep(self._run.depth)
            style, depth = self._run.settings.style, self._run.depth
            self._uploads.catch_up(style.extension, depth, self._second.copied(style.extension, depth))

    def _open_second(self) -> SecondTier | None:
        """Rank 0 only: the mirror as it is now, if there is one."""
        words = self._mirror_words
        return None if words is None else SecondTier(words.url, self._run.store)

    def _asked_for(self, path: str) -> tuple[str, bool]:
        """Rank 0 only: where the checkpoint lies that was asked for; one of the mirror is fetched."""
        second = self._second
        if second is not None and (name := second.far.name_of(path)) is not None:
            path = second.bring(look(second.far, name)).path
        return path, os.path.isdir(path) or is_sharded_at(path)

    def _look_beyond(self, run: Run) -> list[Found]:
        """Rank 0 only: what the mirror has, as far as it can be asked."""
        second = self._second
        return [] if second is None else second.look(run.settings.style.extension, run.depth)

    def _begin_at(self, chosen: str, choice: _Choice, state: dict[str, Any]) -> Start:
        """Put a state back, and go on from its place with the files of its run."""
        restored = put_back(self._parts, state, chosen, self._ranks)
        if restored.missed and self._leads:
            warn(f"resumed from {chosen} without {', '.join(restored.missed)}")
        self._step = int(state.get("global_step", 0))
        self._epoch = int(state.get("next_epoch", state.get("epoch", 0)))
        self._batches = int(state.get("batches", 0))
        self._go_on_from(chosen)
        self._ledger = replace(self._ledger, deferred=str(state.get("deferred", "")))
        for other in self._beside():
            if other._step == 0:  # noqa: SLF001 - one class
                other._follow(self)  # noqa: SLF001 - one class
        return Start(
            epoch=self._epoch,
            step=self._step,
            batches=self._batches,
            path=chosen,
            tier=choice.tier,
            reason=f"{choice.reason}: {chosen}",
            missed=tuple(restored.missed),
            skipped=choice.skipped,
            restored=tuple(restored.done),
        )

    def _read_newest(self, reading: Reading, on_damage: str) -> tuple[_Choice, dict[str, Any]]:
        """Find the newest checkpoint that is whole on every rank, and read it."""
        store, depth = self._run.store, self._run.depth
        passing = PassingOver(store, on_damage)
        search = Search(self._ranks, passing, self._second)

        def met() -> tuple[tuple[Skipped, ...], frozenset[str], str]:
            passing.settle(search.run)
            return passing.skipped, frozenset(passing.damaged), search.tier

        def look_at() -> None:
            beyond = self._look_beyond(self._run)
            search.look_at(scan(store, extension=self._run.settings.style.extension, depth=depth), beyond)

        try:
            self._agree(look_at)
            newest = search.first_whole(reading)
        except (LoadError, OSError):
            self._agree(met)
            raise
        skipped = self._agree(met)
        if newest is not None:
            return _Choice(newest[0], self._agree(lambda: self._why(search)), *skipped), newest[1]
        self._agree(lambda: self._second.check_may_begin_afresh() if self._second is not None else None)
        aside = self._agree(lambda: len(scan_aside(store, depth=depth)))
        known = f"; {aside} that were damaged are set aside there" if aside else ""
        reason = f"a fresh start: there is no whole checkpoint with a full state in {self.dirpath}{known}"
        return _Choice(None, reason, *skipped[:2]), {}

    def _why(self, search: Search) -> str:
        """Rank 0 only: say why the newest whole one is this one."""
        second = self._second
        if second is None:
            return "the newest whole checkpoint"
        if search.branch:
            warn(f"resuming from the newest whole checkpoint{search.branch}")
        if search.tier == MIRROR:
            return f"the newest whole checkpoint, fetched from the mirror {second.url}"
        asked = f" (the mirror {second.url} could not be asked: {second.problem})" if second.problem else ""
        return f"the newest whole checkpoint{asked}"

    def _go_on_from(self, path: str) -> None:
        """Continue the run that saved this checkpoint, with the files it has in the directory."""
        self._start_path = path
        store, step = self._run.store, self._step
        name = store.name_of(path)

        def find() -> tuple[Run, Ledger, frozenset[str], frozenset[str]]:
            root, own_name = split_path(path)
            found = scan(open_store(root), extension=None)
            own = next((item for item in found if item.name == own_name), None)
            if own is not None and own.problem:  # to go on without it would be another run, with none of its files
                msg = f"{path} was loaded, but what it says of itself cannot be read now: {own.problem}. Try again"
                raise LoadError(msg)
            facts = (own.facts if own is not None else None) or Facts()
            run = replace(self._run, resumed_from=Lineage(name or path, step, facts.run or None))
            if name is None or not facts.run:
                return run, with_notes(run, reopen(run, Remembered(), step, self._damaged)), frozenset(), frozenset()
            run = replace(run, run=facts.run, protected=names_of(store, path))
            owners, since = self._earlier_owners(run)
            run, memory = replace(run, since=since), Remembered(owners=owners)
            self._look_beyond(run)
            here = scan(store, extension=run.settings.style.extension, depth=run.depth)
            beyond = [] if self._second is None else self._second.beyond(here)
            ledger = with_notes(run, reopen(run, memory, step, self._damaged, beyond))
            return run, ledger, owners, frozenset(item.name for item in beyond)

        run, self._ledger, self._inherited, self._elsewhere = self._agree(find)
        self._run = replace(run, store=store, clock=self._run.clock)
        self._adopt(standing(self._ledger, self._run.settings), self._path)

    def _beside(self) -> list[LoopResuming]:
        """Return the other checkpointers of the same loop, in an order that is the same on every rank."""
        others = [other for other in beside(self) if isinstance(other, LoopResuming)]
        return [other for other in others if other._parts.model is self._parts.model]  # noqa: SLF001 - one class

    def _follow(self, leader: LoopResuming) -> None:
        """Take the position of a checkpointer of the same loop that has resumed."""
        self._step, self._epoch, self._batches = leader._step, leader._epoch, leader._batches
        self._damaged = leader._damaged
        self._go_on_from(leader._start_path)

    def _claim(self) -> None:
        """Take the files of this owner back from those that took them over as nobody of this policy was there."""
        for other in beside(self):
            if isinstance(other, LoopResuming):
                other._give_back(self._run.owner)  # noqa: SLF001 - one class

    def _give_back(self, owner: str) -> None:
        if owner in self._inherited:
            self._settle(wait=True)
            deferred = self._ledger.deferred
            self._go_on_from(self._start_path)
            self._ledger = replace(self._ledger, deferred=deferred)

    def _earlier_owners(self, run: Run) -> tuple[frozenset[str], int]:
        """Find what this run has saved by another policy, if nobody who is here still saves by it."""
        me = identity_of(run.settings)
        found = scan(run.store, extension=run.settings.style.extension, depth=run.depth)
        taken = self._taken_over(run)
        return earlier_owners(
            run, found, lambda owner: me.is_heir_of(owner) and owner not in taken and not has_sibling(self, owner)
        )

    def _taken_over(self, run: Run) -> frozenset[str]:
        """Return the owners whose files another one here has taken over: with two masters one would lose its best."""
        others = [other for other in beside(self) if isinstance(other, LoopResuming)]
        return frozenset(owner for other in others if other._run.run == run.run for owner in other._inherited)  # noqa: SLF001 - one class
