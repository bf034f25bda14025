"""What a run knows of its own committed checkpoints: values, and functions from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime


@dataclass(frozen=True)
class Entry:
    """One committed checkpoint.

    Attributes:
        name: its file, relative to the checkpoint directory.
        score: the monitored metric of its state; None where nothing is monitored.
        step: its finished optimizer steps.
        epoch: its epoch.
        sequence: its place in the order of the run's saves.
        metrics: every metric of its state, those measured later included.
        time: when it was saved, in UTC; None if that is not known.
        size: its bytes; 0 if they are not known.
        pinned: whether somebody has asked that it be kept.
        tags: the names that people have given it.
        identity: by which notes about it are found; "" if it has none.
        file_id: the same for names that share their bytes; "" if that is not known.

    """

    name: str
    score: float | None
    step: int
    epoch: int
    sequence: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: datetime | None = None
    size: int = 0
    pinned: bool = False
    tags: tuple[str, ...] = ()
    identity: str = ""
    file_id: str = ""


@dataclass(frozen=True)
class Ledger:
    """The committed checkpoints of one callback of one run, and how far it has come.

    Attributes:
        entries: the ranked checkpoints, oldest first.
        last: the checkpoint that ``last`` names, if there is one.
        old_lasts: files that were ``last`` before, and that a kill has saved from their removal.
        preempted: what was saved because a signal asked the run to end, oldest first.
        current_score: the score of the newest ranked checkpoint.
        ranked_step: the step of the newest ranked save of this process; 0 before the first.
        last_step: the step of the state that ``last`` holds; 0 before the first.
        preempted_step: the step of the state that was saved because of a signal; 0 before the first.
        deferred: why a ranked save waits for its metric, or "" if none waits.
        sequence: how many saves this run has asked for.
        begun: how many saves the run had asked for when this process took it up: later ones are of its own course.
        saved_best: the best value of each metric that an ``OnImprovement`` watches, of all that were saved.

    """

    entries: tuple[Entry, ...] = ()
    last: Entry | None = None
    old_lasts: tuple[str, ...] = ()
    preempted: tuple[Entry, ...] = ()
    current_score: float | None = None
    ranked_step: int = 0
    last_step: int = 0
    preempted_step: int = 0
    deferred: str = ""
    sequence: int = 0
    begun: int = 0
    saved_best: Mapping[str, float] = field(default_factory=dict)

    def named(self, name: str) -> Entry | None:
        """Return the ranked entry of this name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def with_entry(self, entry: Entry) -> Ledger:
        """Return the ledger after a ranked commit; an entry of the same name was overwritten."""
        others = tuple(old for old in self.entries if old.name != entry.name)
        score = self.current_score if entry.score is None else entry.score
        entries = (*others, entry)
        return replace(self, entries=entries, current_score=score, ranked_step=entry.step, deferred="")

    def with_last(self, entry: Entry) -> Ledger:
        """Return the ledger after ``last`` was committed."""
        return replace(self, last=entry, last_step=entry.step)

    def with_preempted(self, entry: Entry) -> Ledger:
        """Return the ledger after the state was committed because of a signal."""
        return replace(self, preempted=(*self.preempted, entry), preempted_step=entry.step)

    def with_old(self, name: str) -> Ledger:
        """Return the ledger that still knows of a file which was to be removed and stays for now."""
        known = [*self.entries, *self.preempted, *([self.last] if self.last is not None else [])]
        if name in self.old_lasts or any(entry.name == name for entry in known):
            return self
        return replace(self, old_lasts=(*self.old_lasts, name))

    def without(self, name: str) -> Ledger:
        """Return the ledger after a file was removed."""
        entries = tuple(entry for entry in self.entries if entry.name != name)
        last = None if self.last is not None and self.last.name == name else self.last
        old_lasts = tuple(old for old in self.old_lasts if old != name)
        preempted = tuple(entry for entry in self.preempted if entry.name != name)
        return replace(self, entries=entries, last=last, old_lasts=old_lasts, preempted=preempted)

    def with_again(self, name: str, before: Ledger) -> Ledger:
        """Return the ledger that has a file again, as it was before its removal, since it was not removed after all."""
        ranked = before.named(name)
        if ranked is not None and self.named(name) is None:
            entries = sorted((*self.entries, ranked), key=lambda entry: entry.sequence)
            return replace(self, entries=tuple(entries))
        there = [entry for entry in before.preempted if entry.name == name]
        if there and all(entry.name != name for entry in self.preempted):
            preempted = sorted((*self.preempted, *there), key=lambda entry: entry.sequence)
            return replace(self, preempted=tuple(preempted))
        return self.with_old(name)
