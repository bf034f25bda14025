"""From a directory to a ledger: the directory is the truth, and what a resumed state remembers fills in."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from holdfast.directories import is_sealed
from holdfast.front.planning import Plan, Run, entry_of
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.when import better_of
from holdfast.records import LAST, PREEMPTED, RANKED, Facts
from holdfast.scanning import Found, look, scan


@dataclass(frozen=True)
class Remembered:
    """What a resumed state says of the files of its run, for those that have no manifest.

    Attributes:
        scores: the ranked files, by name, oldest first; None where nothing is monitored.
        last: the name of ``last``, or "".
        current_score: the score of the newest ranked checkpoint.
        sequence: how many saves the run had asked for.
        owners: the identifiers under which this callback has saved.
        deferred: why a ranked save was waiting for its metric, or "".
        bare: those files that were saved without a manifest: their names are all there is to go by.

    """

    scores: Mapping[str, float | None] = field(default_factory=dict)
    last: str = ""
    current_score: float | None = None
    sequence: int = 0
    owners: frozenset[str] = frozenset()
    deferred: str = ""
    bare: frozenset[str] = frozenset()


def reopen(
    run: Run, memory: Remembered, step: int, damaged: Collection[str] = (), beyond: Iterable[Found] = ()
) -> Ledger:
    """Find the checkpoints of this run again: the directory is the truth, and the memory fills in.

    Args:
        run: the run, with its identifier as restored.
        memory: what the resumed state remembers.
        step: the step at which training goes on; 0 for a fresh start.
        damaged: the names of files that are known to be damaged, and so are no checkpoints, though they are
            there.
        beyond: checkpoints that only the mirror has, by names that are free here. They are ranked with the others.

    """
    monitor = run.settings.monitor
    afar = [replace(item, size=0) for item in beyond]  # of the room here they take none
    found = [*scan(run.store, extension=run.settings.style.extension, depth=run.depth), *afar]
    sound = [item for item in found if item.name not in damaged or item in afar]
    mine = [item for item in sound if _is_mine(item, run, memory)]
    entries = [_entry(item, monitor, memory) for item in mine if item.role == RANKED]
    entries += _entries_from_memory(sound, memory, {entry.name for entry in entries})
    entries.sort(key=lambda entry: entry.sequence)
    preempted = [_entry(item, monitor, memory) for item in mine if item.role == PREEMPTED]
    preempted.sort(key=lambda entry: entry.sequence)
    lasts = _lasts(sound, mine, memory, monitor)
    last = lasts[-1] if lasts else None
    issued = (item.facts.sequence for item in found if item.facts is not None and item.facts.run == run.run)
    sequence = max(memory.sequence, *issued, 0)
    at_step = {entry.step for entry in entries}
    return Ledger(
        entries=tuple(entries),
        last=last,
        old_lasts=tuple(old.name for old in lasts[:-1]),
        preempted=tuple(preempted),
        current_score=memory.current_score,
        ranked_step=step if step in at_step else 0,
        last_step=step if last is not None and last.step == step else 0,
        preempted_step=step if any(entry.step == step for entry in preempted[-1:]) else 0,
        deferred=memory.deferred,
        sequence=sequence,
        begun=sequence,
        saved_best=_saved_best(run, mine),
    )


def earlier_owners(run: Run, found: Iterable[Found], may_inherit: Callable[[str], bool]) -> tuple[frozenset[str], int]:
    """Return the owners whose files a run takes over as it goes on with another policy, and since when it has this one.

    Those that had ended before this policy began: no save of theirs came after. What two policies save side by side
    stays with each of them.

    Args:
        run: the run, with its identifier as restored.
        found: what is in the directory.
        may_inherit: whether an owner differs from this one in its policy alone, and is not there itself.

    """
    issued: dict[str, int] = {}
    began: list[int] = []
    for facts in (item.facts for item in found):
        if facts is not None and facts.run == run.run:
            issued[facts.owner] = max(facts.sequence, issued.get(facts.owner, 0))
            if facts.owner == run.owner:
                said = facts.policy.get("since", 0)
                began.append(said if isinstance(said, int) else 0)
    since = min(began) if began else max(issued.values(), default=0)
    return frozenset(owner for owner, last in issued.items() if last <= since and may_inherit(owner)), since


Stamps = dict[str, tuple[int, ...]]


class Stamped(Protocol):
    """A save that is over."""

    @property
    def stamp(self) -> tuple[int, ...] | None:
        """The store's stamp of what it has committed, right after that."""
        ...


def note_stamps(stamps: Stamps, plan: Plan, flight: Stamped) -> None:
    """Take note of what a file that this process has committed is like."""
    for name in plan.names.values():
        stamps.pop(name, None)
        if flight.stamp is not None:
            stamps[name] = flight.stamp


def is_ours(run: Run, ledger: Ledger, name: str, stamps: Stamps) -> bool:
    """Tell, just before a file is removed, whether it still is the one that this run committed.

    It may have been written over since by its user or by another run. One that cannot be read is not known
    to be ours. A file that is as it was when this process committed it need not be read: its ``stamps``.
    """
    if name in stamps and run.store.stamp(name) == stamps.pop(name):
        return True
    path = run.store.path(name)
    if not run.store.exists(name) or (run.store.is_local and os.path.isdir(path) and not is_sealed(run.store, name)):
        return True  # gone already; or shards of others, which say nothing of themselves
    item = look(run.store, name)
    if item.problem:
        return False
    entry = ledger.named(name)
    if entry is None and ledger.last is not None and ledger.last.name == name:
        entry = ledger.last
    if item.facts is None or not item.facts.run:
        return run.bare or (entry is not None and entry.sequence <= 0)
    return item.facts.run == run.run and (entry is None or item.facts.sequence == entry.sequence)


def not_ours(path: str) -> str:
    """Say why a file that retention has dropped is left."""
    return f"{path} is left, though newer checkpoints replace it: it is no longer the file that this run saved"


def _saved_best(run: Run, mine: list[Found]) -> dict[str, float]:
    """Return the best values of what ``OnImprovement`` watches: as the manifests say, and by what is there."""
    best: dict[str, float] = {}
    keys = {term.key for term in run.settings.when.improvements}
    for facts in (item.facts for item in mine if keys and item.facts is not None):
        said = facts.policy.get("saved_best")
        for key, value in said.items() if isinstance(said, dict) else ():
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # a manifest of another's making
                if key in keys and not math.isnan(float(value)):
                    best = better_of(best, {key: float(value)})
        best = better_of(best, run.settings.when.values(facts.metrics))
    return best


def _is_mine(item: Found, run: Run, memory: Remembered) -> bool:
    if item.facts is None or item.role is None:
        return False
    return item.facts.run == run.run and item.facts.owner in {run.owner, *memory.owners}


def _is_nobodys(item: Found) -> bool:
    """Tell whether a file does not say itself whose it is; one that does belongs to whom it says."""
    return not item.problem and (item.facts is None or not item.facts.run)


def _entry(item: Found, monitor: str | None, memory: Remembered) -> Entry:
    facts = item.facts or Facts()
    score = facts.metrics.get(monitor, memory.scores.get(item.name)) if monitor is not None else None
    return replace(entry_of(item.name, facts), score=score, size=item.size)


def _entries_from_memory(found: list[Found], memory: Remembered, known: set[str]) -> list[Entry]:
    """Entries for remembered files that are there without a manifest that says so."""
    there = {item.name: item for item in found if _is_nobodys(item)}
    entries = []
    for place, (name, score) in enumerate(memory.scores.items()):
        if name in there and name in memory.bare and name not in known:
            facts = there[name].facts or Facts()
            order = facts.sequence or place - len(memory.scores)
            entries.append(replace(entry_of(name, facts), score=score, sequence=order, size=there[name].size))
    return entries


def _lasts(found: list[Found], mine: list[Found], memory: Remembered, monitor: str | None) -> list[Entry]:
    """Return the files that are or were ``last``, the newest at the end."""
    lasts = [_entry(item, monitor, memory) for item in mine if item.role == LAST]
    if lasts or memory.last not in memory.bare:
        return sorted(lasts, key=lambda entry: entry.sequence)
    return [_entry(item, monitor, memory) for item in found if item.name == memory.last and _is_nobodys(item)]
