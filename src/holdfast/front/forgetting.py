"""What a run forgets once a save is committed: the rules, asked of what is committed and of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Final

from holdfast.format.signature import SUFFIX
from holdfast.front.noted import forget_notes, is_pinned, said_of
from holdfast.front.noting import forget_all_gone, holding
from holdfast.front.planning import Plan, Run, landed, with_notes
from holdfast.front.reopening import Stamps, is_ours, not_ours
from holdfast.front.saving import remove_signature
from holdfast.notes import Notes
from holdfast.policy import keeping
from holdfast.policy.budget import Within
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.retention import Decision
from holdfast.policy.rules import All
from holdfast.policy.terms import Known
from holdfast.records import LAST, PREEMPTED, RANKED, Noted
from holdfast.scanning import name_before
from holdfast.storage.partial import kept_from_sweeps
from holdfast.storage.standing import discard, stamp_of, standing
from holdfast.telling import warn

PINNED: Final = "pinned"


@dataclass(frozen=True)
class Forgetting:
    """What rank 0 has found out at a commit, for all ranks.

    Attributes:
        ledger: what is committed, with what is known of it by now; None where that is what was asked about, so
            that thousands of entries which every rank has are not sent to all at each save.
        dropped: what is to be removed, each with its reason.

    """

    ledger: Ledger | None
    dropped: tuple[Decision, ...] = ()


def look_again(
    run: Run, ledger: Ledger, before: Ledger, heard: Callable[[], Notes | None] = lambda: None
) -> Forgetting:
    """Rank 0 only: take note of what people say by now, and ask what is to be removed.

    Args:
        run: the run.
        ledger: what is committed.
        before: what was, before the newest save.
        heard: returns what was read of it right after the commit; None to read it now. May raise as the reading does.

    """
    try:
        known = with_notes(run, _sizes(run, ledger), heard())
    except OSError as error:
        warn(
            f"what is noted of the checkpoints in {run.store.root} could not be read: {error}. Nothing is removed "
            "until it can be, as anything may be pinned"
        )
        return Forgetting(_put_off(ledger, before))
    return Forgetting(None if known is ledger else known, tuple(to_remove(run, known, before)))


@contextmanager
def taking(run: Run, ledger: Ledger, name: str, stamps: Stamps) -> Iterator[str]:
    """Rank 0 only: hold a file against those who would pin it, while it is removed; yield why it must be left.

    That is "" if it need not be, ``PINNED`` if somebody has pinned it since (or says something of it right now), else
    a sentence.
    """
    with holding(run.store, name) as held:
        spoken_of = not held and run.store.exists(name)
        yield PINNED if spoken_of else _why_left(run, ledger, name, stamps)


def _why_left(run: Run, ledger: Ledger, name: str, stamps: Stamps) -> str:
    try:
        if is_pinned(run, ledger, name):
            return PINNED
        return "" if is_ours(run, ledger, name, stamps) else not_ours(run.store.path(name))
    except OSError as error:  # an answer all the same: other ranks wait for it
        return f"{run.store.path(name)} is left, as it cannot be told whether it may go: {error}"


def take_far(run: Run, now: Ledger, before: Ledger, name: str, stamps: Stamps) -> str:
    """Rank 0 only: remove a file behind a URL with what belongs to it, unless it must be left; return why.

    Three requests: what is there, what is said of it, and the removal; more where its stamp does not tell that it is
    the one that this process committed, and where something is said of it.

    Raises:
        OSError: if it cannot be removed, or what is said of it.

    """
    path = run.store.path(name)
    try:
        there = standing(run.store, name, (SUFFIX,))
        known = stamps.pop(name, None)
        same = known is not None and there.blob is not None and known == stamp_of(there.blob)
        if not same and not is_ours(run, before, name, {}):
            return not_ours(path)
        said = said_of(run, before, name)
    except OSError as error:
        return f"{path} is left, as it cannot be told whether it may go: {error}"
    if said.pinned:
        return PINNED
    discard(run.store, name, (SUFFIX,), there)
    if said != Noted():  # what came in the instant between is swept at the next start
        forget_notes(run, now, before, name)
    return ""


def forget(run: Run, now: Ledger, before: Ledger, name: str) -> None:
    """Rank 0 only: after a checkpoint is gone, its signature and its notes go.

    Args:
        run: the run.
        now: what is committed.
        before: what was when the removal was decided.
        name: what was removed.

    Raises:
        OSError: if they cannot be removed; the next start of the run does that then.

    """
    remove_signature(run.store, name)
    forget_notes(run, now, before, name)


def sweep_up(run: Run, *, downloads: bool = True) -> list[str]:
    """Rank 0 only: remove what a run that died has left behind in the directory; return what, by name.

    Unfinished files, and the signatures and notes of checkpoints that it had removed. With ``downloads`` False what
    was being fetched from a mirror stays for the moment: the resume goes on with it.
    """
    with nullcontext() if downloads else kept_from_sweeps(run.store, run.depth):
        removed = run.store.sweep(run.depth)
    names = {blob.name for blob in run.store.blobs(run.depth)}
    before = {name_before(name) for name in names}  # what was set aside keeps its signature
    ending = run.settings.style.extension + SUFFIX
    orphans = [name for name in sorted(names) if name.endswith(ending) and name.removesuffix(SUFFIX) not in before]
    for name in orphans:
        run.store.remove(name)
    forget_all_gone(run.store, run.depth)
    return [*removed, *orphans]


def _put_off(ledger: Ledger, before: Ledger) -> Ledger:
    """Return the ledger that still knows what the next commit has to forget."""
    names = (before.last.name,) if before.last is not None else ()
    current = ledger.last.name if ledger.last is not None else ""
    old = dict.fromkeys((*before.old_lasts, *names))
    return replace(ledger, old_lasts=tuple(name for name in old if name != current))


def outlook(run: Run, ledger: Ledger, plans: Iterable[Plan]) -> Ledger:
    """Return the ledger as it will be when the plans that are being carried out are, and their removals."""
    for plan in plans:
        before, ledger = ledger, landed(plan, ledger, with_last=True)
        for decision in to_remove(run, ledger, before):
            ledger = ledger.without(decision.name)
    return ledger


def to_remove(run: Run, ledger: Ledger, before: Ledger) -> list[Decision]:
    """Return what retention drops now that the ledger is committed: each with its reason."""
    again = _saved_again(run, ledger)
    dropped = _dropped_by_rules(run, ledger, before, again)
    dropped += [
        Decision(name, keep=False, reason="the same state was saved again, as it was measured") for name in again
    ]
    if ledger.last is not None:
        old = [before.last.name] if before.last is not None else []
        spared = {ledger.last.name, *run.protected}
        dropped += [
            Decision(name, keep=False, reason="a newer last replaced it")
            for name in dict.fromkeys((*old, *before.old_lasts))
            if name not in spared
        ]
    # What a signal had saved is for the next resume alone: it goes with the first commit after it.
    overtaken = [entry.name for entry in before.preempted if not (entry.pinned or entry.name in run.protected)]
    return dropped + [Decision(name, keep=False, reason="a newer checkpoint is committed") for name in overtaken]


def _dropped_by_rules(run: Run, ledger: Ledger, before: Ledger, again: Collection[str]) -> list[Decision]:
    settings = run.settings
    if settings.rules and all(isinstance(rule, All) for rule in settings.rules):
        return []  # a run that keeps all may have ten thousand: to decide about each takes long
    entries = tuple(entry for entry in ledger.entries if entry.name not in again)
    decisions = keeping.plan(
        settings.rules,
        _candidates(run, replace(ledger, entries=entries), before),
        run.clock.now(),
        monitor=settings.monitor,
        mode=settings.mode,
        resumed_from=run.protected,
    )
    return [decision for decision in decisions if not decision.keep]


def _candidates(run: Run, ledger: Ledger, before: Ledger) -> list[Known]:
    """Return the ledger as the rules see it; what they do not decide about counts for the budgets."""
    overtaken = {entry.name for entry in before.preempted if not entry.pinned} - run.protected
    found = [_known(run, entry, RANKED) for entry in ledger.entries]
    if ledger.last is not None:
        found.append(_known(run, ledger.last, LAST))
    stay = [entry for entry in ledger.preempted if entry.name not in overtaken]
    return found + [_known(run, entry, PREEMPTED) for entry in stay]


def _known(run: Run, entry: Entry, role: str) -> Known:
    monitor = run.settings.monitor
    metrics: Mapping[str, float] = entry.metrics
    if monitor is not None:  # a run may know the score of a file that does not say it
        others = {name: value for name, value in metrics.items() if name != monitor}
        metrics = others if entry.score is None else {**others, monitor: entry.score}
    return Known(
        entry.name,
        step=entry.step,
        epoch=entry.epoch,
        sequence=entry.sequence,
        metrics=metrics,
        time=entry.time,
        size=entry.size,
        file_id=entry.file_id,
        pinned=entry.pinned,
        tags=entry.tags,
        role=role,
    )


def _saved_again(run: Run, ledger: Ledger) -> list[str]:
    """Return the checkpoints of a state that was saved once more under another name, as a metric came late.

    Only ``keep`` saves a state before it is measured. What was saved before the run was taken up is no such state: a
    run that went back comes to the same step again, and so does one that has another score.
    """
    ranked_by = run.settings.ranked_by
    newest = max(ledger.entries, key=lambda entry: entry.sequence, default=None)
    if newest is None or run.settings.keep is None:
        return []
    return [
        entry.name
        for entry in ledger.entries
        if entry.step == newest.step and ledger.begun < entry.sequence < newest.sequence
        if not (entry.pinned or entry.tags or entry.name in run.protected)
        if entry.metrics.keys() < newest.metrics.keys()
        if all(entry.metrics.get(name) in (None, newest.metrics[name]) for name in ranked_by & newest.metrics.keys())
    ]


def _sizes(run: Run, ledger: Ledger) -> Ledger:
    """Return the ledger with the sizes that its budgets ask for."""
    if not any(isinstance(rule, Within) for rule in run.settings.rules):
        return ledger
    last = None if ledger.last is None else _sized(run, ledger.last)
    entries = tuple(_sized(run, entry) for entry in ledger.entries)
    preempted = tuple(_sized(run, entry) for entry in ledger.preempted)
    return replace(ledger, entries=entries, last=last, preempted=preempted)


def _sized(run: Run, entry: Entry) -> Entry:
    """Look once how many bytes a file has, and which ones."""
    if entry.size and entry.file_id:
        return entry
    try:
        size = entry.size or run.store.size(entry.name)
    except OSError:  # gone, or not to be asked now: then it counts nothing, and is asked again
        return entry
    stamp = run.store.stamp(entry.name) if run.store.is_local else None
    return replace(entry, size=size, file_id=str(stamp[0]) if stamp else f"name {entry.name}")
