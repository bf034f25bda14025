"""The part of ``Checkpointer`` that carries a plan out: begins the save, and lands it once it is committed.

Rank 0 decides and touches files; the others follow, so that all know the same at the same event.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial, reduce
from typing import TypeVar

from holdfast.clock import Clock, SystemClock
from holdfast.errors import SaveError
from holdfast.front.attributes import RankingAttributes
from holdfast.front.costs import Costs
from holdfast.front.failures import Failures, FailureWords
from holdfast.front.forgetting import PINNED, forget, look_again, outlook, take_far, taking
from holdfast.front.leaving import Leaving, Removal, leaves_behind, tell
from holdfast.front.loop_beginning import LoopBeginning, Outcome
from holdfast.front.mirror_words import MirrorWords
from holdfast.front.owning import Owned
from holdfast.front.planning import Plan, Run, landed
from holdfast.front.preemption import hurried, listen
from holdfast.front.remaining import Remaining
from holdfast.front.reopening import Stamps, note_stamps
from holdfast.front.save_mode import SaveMode
from holdfast.front.saving import raise_first, warm
from holdfast.front.standing import standing
from holdfast.front.under_way import announce, names_of_others
from holdfast.front.uploads import Uploads
from holdfast.policy.ledger import Ledger
from holdfast.ranks import ranks_here
from holdfast.records import LAST
from holdfast.snapshot import has_shards, weigh
from holdfast.storage import join_path
from holdfast.telling import warn

log = logging.getLogger("holdfast")

T = TypeVar("T")


class LoopSaving(LoopBeginning, RankingAttributes, FailureWords):
    """Has saves begun; lands them, and forgets."""

    _doing = "the start"  # what the ranks have to do at the same time

    def _init_saving(self, mode: SaveMode, failures: Failures) -> None:
        self._failures = failures
        self._mode = mode
        self._ranks = ranks_here()
        self._alone, self._leads = self._ranks.alone, self._ranks.leads
        self._init_beginning()
        self._costs = Costs()
        self._waiting: deque[Plan] = deque()
        self._stamps: Stamps = {}  # rank 0 only
        self._leaving: deque[Leaving] = deque()  # removals that are not known to be over, the same on every rank
        self._remaining = Remaining(None, None, SystemClock())
        self._warmed = self._hearing = False
        self._interrupted = False
        self._signals: frozenset[int] = frozenset()
        self._owned: Owned | None = None  # rank 0 only: gives the directory up
        self._mirror_words: MirrorWords | None = None
        self._uploads: Uploads | None = None  # rank 0 only
        self._elsewhere: frozenset[str] = frozenset()  # names in the ledger that only the mirror has

    def fence(self) -> None:
        """Wait until no save reads the parameters any more. Torch's optimizers call it by themselves.

        Only for loops with ``overlap`` or ``zero_copy`` whose optimizer is none of torch's: call it before
        its step.
        """
        for saver in (self._saver, self._shards):
            if saver is not None:
                saver.fence()

    def wait(self) -> None:
        """Wait until every save that was begun is committed, and what it replaces is removed. Call it on all ranks.

        Raises:
            SaveError: if one of them could not be committed, whatever ``on_error`` says.

        """
        self._doing = "wait()"
        with self._failures.asked_for():
            self._settle(wait=True)

    def _agree(self, decide: Callable[[], T]) -> T:
        return self._ranks.agree(decide, at=self._doing)

    def _note_clock(self) -> Clock:
        return self._run.clock

    def _path(self, name: str) -> str:
        if name in self._elsewhere and self._mirror_words is not None:
            return join_path(self._mirror_words.url, name)
        return self._run.store.path(name) if name else ""

    def _outlook(self) -> Ledger:
        """Return the ledger as it will be once all that is on its way is committed."""
        return outlook(self._run, self._ledger, self._waiting) if self._waiting else self._ledger

    def _planned_run(self) -> Run:
        """Return the run with the names that are given away already."""
        names = {name for plan in self._waiting for role, name in plan.names.items() if role != LAST}
        last = "" if self._ledger.last is None else self._ledger.last.name
        given = names_of_others(self, self._run.store) | (self._elsewhere - {last})
        leaving = self._names_leaving()
        if not (names or given or leaving):
            return self._run
        return replace(self._run, waiting=frozenset(names), given=given, leaving=leaving)

    def _names_leaving(self) -> frozenset[str]:
        return frozenset(name for leaving in self._leaving for name in leaving.names)

    def paths_under_way(self) -> Iterable[str]:
        """Return the paths of the saves that are not known to be committed, and of what is being removed."""
        names = [name for plan in self._waiting for name in plan.names.values()]
        return [self._path(name) for name in (*names, *self._names_leaving())]

    def _close_saver(self) -> None:
        self._let_savers_go()
        while self._leaving and not hurried():  # what an exception has left
            left = self._leaving.popleft().look(wait=True)
            if left is not None:
                tell(left)
        self._waiting.clear()  # what an exception has left is over
        self._flights.clear()
        if self._spare:
            self._run.store.remove(self._spare)
            self._spare = ""

    def _warm_up(self) -> None:
        """At the first step, when the optimizer has a state: have the memory for the saves ready before one is due."""
        self._warmed = True
        self._hear_signals()
        if not self._leads:
            return
        optimizers = () if self._run.settings.save_weights_only else self._parts.optimizers
        size = weigh(self._parts.model, optimizers)
        self._remaining.assume(size)
        self._warn(self._preflight.begin(self._run, self._ledger, size))
        if self._mode.async_save and not has_shards(self._parts.model):
            warm(self._open_saver, self._parts.model, self._parts.optimizers)

    def _hear_signals(self) -> None:
        """From the first call of the loop on, not before: until then there is nothing that a signal would lose."""
        self._hearing = True
        listen(self, self._signals, together=not self._alone, grace=self._remaining.grace)

    def _look_after(self) -> None:
        """Between saves: let what is on its way go on, and take note of what has been committed."""
        if not self._warmed:
            self._warm_up()
        for saver in (self._saver, self._shards):
            if saver is not None:
                saver.poll()
        if self._alone:
            self._settle(wait=False)

    def _carry_out(self, plan: Plan, loop: dict[str, int | str], *, final: bool) -> None:
        """Write; commit; and only then forget."""
        begun = self._begin_anywhere(plan, loop)
        if begun is not None:
            self._land(plan, begun)
            return
        self._waiting.append(plan)
        announce(self)
        # Its place in the order of saves is taken, or the next save would count as equally old.
        self._ledger = replace(self._ledger, sequence=plan.after.sequence)
        if final:
            self._settle(wait=True)

    def _wait_for_room(self) -> None:
        """Wait for the saves before this one, and count that."""
        begun = time.perf_counter()
        self._settle(wait=True)
        self.stats.waited += 1
        self.stats.wait_seconds += time.perf_counter() - begun

    def _settle(self, *, wait: bool) -> None:
        """Land what is committed by now; with ``wait``, all that is on its way; then raise the first error."""
        errors = []
        self._see_off(wait=False)
        while self._waiting:
            if wait and self._flights:  # every rank that writes: rank 0's waits for theirs
                self._flights[0].wait()
            outcome = self._agree(self._outcome)
            if outcome is None:
                break
            if self._flights and not self._leads:
                self._flights.popleft().wait()
            try:
                self._land(self._waiting.popleft(), outcome)
            except SaveError as error:
                errors.append(error)
        self._see_off(wait=wait)
        raise_first(errors)

    def _see_off(self, *, wait: bool) -> None:
        """Take note of the removals that are over; with ``wait``, of all. Every rank calls it."""
        while self._leaving:
            leaving = self._leaving.popleft()
            left = self._agree(partial(leaving.look, wait=wait))
            if left is None:
                self._leaving.appendleft(leaving)
                break
            self._ledger = leaving.settled(self._ledger, left)
            if left.stay:
                self._adopt(standing(self._ledger, self._run.settings), self._path)
            if self._leads:
                tell(left)

    def _outcome(self) -> Outcome | None:
        """Rank 0 only: what became of the oldest save; None if it is still on its way."""
        flight = self._flights[0]
        if not flight.done:
            return None
        note_stamps(self._stamps, self._waiting[0], self._flights.popleft())
        self._warn(self._remaining.learn(flight.seconds if flight.committed else 0.0))
        return Outcome(flight.committed, flight.link_error is None, flight.error or flight.link_error)

    def _land(self, plan: Plan, outcome: Outcome) -> None:
        """Take note of a commit, and forget what retention drops."""
        hearing = self._hearings.pop(plan.primary, None)
        if outcome.committed:
            self.stats.committed += 1
            self._failures.committed()
            if self._leads:
                self._preflight.learn(self._run, plan.primary)
            before = self._ledger
            self._elsewhere -= set(plan.names.values())
            if self._uploads is not None:
                self._uploads.offer(plan.names[role] for role in plan.names if outcome.linked or role != LAST)
            done = landed(plan, before, with_last=outcome.linked or not plan.also)
            heard = [] if hearing is None else [hearing.said]
            seen = self._agree(partial(look_again, self._run, done, before, *heard))
            done = seen.ledger or done
            if leaves_behind(self._run, behind=self._mode.async_save):
                done = self._let_go([decision.name for decision in seen.dropped], done, before)
                seen = replace(seen, dropped=())
            for decision in seen.dropped:
                if self._agree(partial(self._remove, decision.name, done, before)):
                    done = done.without(decision.name)
                else:
                    done = done.with_old(decision.name)
            self._ledger = done
            self._adopt(standing(done, self._run.settings), self._path)
        if outcome.error is not None:
            self._make_room(outcome.error)
            self._report(plan, outcome.error)

    def _let_go(self, names: list[str], done: Ledger, before: Ledger) -> Ledger:
        """Have files removed behind the training; return the ledger without them. Every rank calls it."""
        if not names:
            return done
        work = None
        if self._leads:
            earlier = self._leaving[-1] if self._leaving else None
            known = (self._run, done, before, names, self._stamps)
            work = Removal(*known, lambda: self._run.protected, earlier)
        self._leaving.append(Leaving(names, done, work))
        announce(self)
        return reduce(Ledger.without, names, done)

    def _make_room(self, error: SaveError) -> None:
        """After a save that failed: on a full disk nothing stays for the mirror alone."""
        if self._mirror_words is None:
            return
        for name in self._agree(lambda: [] if self._uploads is None else self._uploads.make_room(error)):
            if self._agree(partial(self._remove, name, self._ledger, self._ledger)):
                self._ledger = self._ledger.without(name)

    def _report(self, plan: Plan, error: SaveError) -> None:
        message = self._failures.judge(error, spared=self._interrupted or plan.verdict.exception)
        if self._leads:
            log.error(message)
        warn(message)

    def _remove(self, name: str, now: Ledger, before: Ledger) -> bool:
        """Rank 0 only; tell whether the run is done with this file."""
        if self._uploads is not None and self._uploads.needs(name):
            return False
        if name in self._elsewhere:  # on the mirror, which forgets by its own rules
            return True
        problem, retired = f"the old checkpoint {self._path(name)} could not be removed", ""
        try:
            if self._run.store.is_local:
                with taking(self._run, before, name, self._stamps) as left:
                    if not left:
                        retired = self._take_away(name)
                if not left:
                    forget(self._run, now, before, name)
            else:
                left = take_far(self._run, now, before, name, self._stamps)
            if left == PINNED:
                return False
            if left:
                warn(left)
        except OSError as error:
            warn(f"{problem}: {error}")
        if retired:  # also where what belongs to it could not be forgotten
            self._open_saver().tidy(partial(self._run.store.remove, retired), problem)
        return True

    def _take_away(self, name: str) -> str:
        """Take a file's name away; return what is left to be removed behind the training, if anything is."""
        store = self._run.store
        if not self._mode.async_save:
            store.remove(name)
            return ""
        retired = store.retire(name)
        if self._mode.recycle_blocks and not self._spare and not self._cut:
            self._spare, retired = retired, ""
        return retired

    def _skip(self, plan: Plan) -> None:
        """Leave a save out, and say so."""
        self.stats.skipped += 1
        log.info("skipped the save of %s: an earlier one is still being written", self._path(plan.primary))

    def _abandon(self) -> None:
        """After an exception: let what was begun be committed, but raise nothing over the exception."""
        for flight in self._flights:
            flight.wait()
