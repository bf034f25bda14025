"""Where policy meets storage: from a moment to a plan, from a directory to a ledger.

A plan is a plain value: rank 0 makes it and every rank carries it out. Nothing here writes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from holdfast import notes
from holdfast.clock import Clock, SystemClock
from holdfast.errors import MissingMetricError, SaveError
from holdfast.front.provenance import git_commit, versions
from holdfast.front.wording import missing_message, saving_message, when
from holdfast.policy import ranking
from holdfast.policy.ledger import Entry, Ledger
from holdfast.policy.moment import Moment
from holdfast.policy.naming import check_inside, depth, file_name
from holdfast.policy.settings import Settings
from holdfast.policy.trigger import Verdict, decide, measured_of
from holdfast.policy.when import better_of
from holdfast.records import EXCEPTION, LAST, PREEMPTED, RANKED, Facts, Lineage, Noted
from holdfast.storage import Store, real_path


@dataclass(frozen=True)
class Run:
    """What stays the same while a run saves.

    Attributes:
        settings: what it was told.
        store: where it saves.
        run: identifies the run; survives its resumes.
        owner: identifies this callback within the run.
        kind: who lays out the state: ``"lightning"`` or ``"torch"``.
        bare: whether another plugin writes the files, without a manifest.
        resumed_from: the checkpoint that the run resumed from.
        protected: its names in this store, if it lies there: the one it was resumed by, and the file
            behind that if it is a symbolic link. Retention never removes them, and no ranked save takes
            their names (but ``last`` moves on, and so does a name without a version counter).
        clock: where the time comes from.
        waiting: names given to saves that a background writer has not written yet.
        given: those that others have given to theirs.
        leaving: those of files that are being removed behind the training: as good as free, but nothing is written
            there before they are gone.
        since: how many saves the run had asked for when it took up this policy, after another; else 0.

    """

    settings: Settings
    store: Store
    run: str
    owner: str = ""
    kind: str = "torch"
    bare: bool = False
    resumed_from: Lineage | None = None
    protected: frozenset[str] = frozenset()
    clock: Clock = field(default_factory=SystemClock)
    waiting: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()
    since: int = 0

    @property
    def depth(self) -> int:
        """How many folders down the names of this run may lie."""
        style = self.settings.style
        keys = depth(self.settings.filename), depth(style.last)
        return max(keys)

    def note_folders(self, name: str) -> tuple[str, ...]:
        """Return the folders in which notes of a save may lie: that of the name, and that of ``last``."""
        return tuple(dict.fromkeys(other[: other.rfind("/") + 1] for other in (name, self.settings.style.last)))


def new_run_id() -> str:
    """Return an identifier that no other run has."""
    return secrets.token_hex(8)


_NOTHING = Entry("", None, 0, 0, 0)


@dataclass(frozen=True)
class Plan:
    """What is to be written at a moment.

    Attributes:
        verdict: the decision behind it.
        names: the files to write, by role.
        facts: what they say of themselves.
        after: the ledger once all of them are committed.
        entry: what the ledger will say of this save.
        values: those of what ``OnImprovement`` watches.
        messages: what to tell the user if it is verbose.
        problem: why nothing can be written though it is due: the store did not say which names are free.

    """

    verdict: Verdict
    names: Mapping[str, str]
    facts: Facts
    after: Ledger
    messages: tuple[str, ...] = ()
    entry: Entry = _NOTHING
    values: Mapping[str, float] = field(default_factory=dict)
    problem: SaveError | None = None

    @property
    def primary(self) -> str:
        """The file whose bytes are written; the others are further names of them."""
        return next((self.names[role] for role in (RANKED, EXCEPTION, PREEMPTED, LAST) if role in self.names), "")

    @property
    def also(self) -> str:
        """``last``, when it is a further name of the primary file; else ""."""
        last = self.names.get(LAST, "")
        return "" if last == self.primary else last

    def for_all(self) -> Plan:
        """Return what every rank has to know of it: not the ledger's thousands of entries, which each has."""
        return replace(self, after=replace(self.after, entries=()))

    def without_last(self) -> Plan:
        """Return the plan for the primary file alone, if it has ``last`` as a second name."""
        names = {role: name for role, name in self.names.items() if name != self.also}
        return replace(self, names=names)


def names_of(store: Store, path: str) -> frozenset[str]:
    """Return the names that a file has in a store: its own, and that of the file behind a symbolic link."""
    names = {store.name_of(path), store.name_of(real_path(path))}
    return frozenset(name for name in names if name is not None)


def consider(run: Run, ledger: Ledger, moment: Moment) -> Plan:
    """Decide what to save at a moment, and under which names.

    Raises:
        MissingMetricError: if an epoch's save needs a metric that was never logged.

    """
    settings = run.settings
    verdict = decide(settings, moment, ledger)
    if verdict.missing and verdict.fatal:
        raise MissingMetricError(missing_message(settings, moment))
    quiet = replace(ledger, deferred=verdict.deferred)
    metrics = _metrics_of(settings, moment)
    score = metrics.get(settings.monitor) if settings.monitor is not None else None
    messages: tuple[str, ...] = ()
    if verdict.ranked and score is not None:
        ledger = _measured_since(run, ledger)
        admitted = ranking.admits(ledger.entries, score, settings.save_top_k, settings.mode)
        verdict = replace(verdict, ranked=admitted)
        if not admitted:
            messages = (f"{when(settings, moment)} was not in top {settings.save_top_k}",)
    if not verdict.saves:
        return Plan(verdict, {}, Facts(), quiet, messages)
    try:
        names = _names(run, ledger, moment, verdict, score)
    except OSError as error:
        return Plan(verdict, {}, Facts(), quiet, messages, problem=_no_name(run, error))
    if verdict.ranked and score is not None:
        messages = (saving_message(run, ledger, moment, score, names[RANKED]),)
    facts = _facts(run, ledger, moment, verdict, names)
    entry = replace(entry_of("", facts), score=score)
    values = settings.when.values(measured_of(moment)) if verdict.ranked else {}
    plan = Plan(verdict, names, facts, quiet, messages, entry, values)
    return replace(plan, after=replace(_after(quiet, plan, names), deferred=verdict.deferred))


def _no_name(run: Run, error: OSError) -> SaveError:
    """Return the error for a save whose name may be that of something that is there: nobody could tell."""
    msg = (
        f"a checkpoint was not saved in {run.store.root}: it could not be seen whether its name is free: {error}. "
        "Nothing was written, and what was committed before is whole"
    )
    return SaveError(msg, path=run.store.root, errno=error.errno)


def _measured_since(run: Run, ledger: Ledger) -> Ledger:
    """Return the ledger with what was said since the last look, where a ranking decides what a save may push out.

    A refused save commits nothing, and a run looks at its commits: it would go by an old ranking for good.
    """
    if not 0 < run.settings.save_top_k <= len(ledger.entries):
        return ledger
    try:
        return with_notes(run, ledger)
    except OSError:  # by what is known, then; the next save asks again
        return ledger


def with_notes(run: Run, ledger: Ledger, said: notes.Notes | None = None) -> Ledger:
    """Rank 0 only: return the ledger with what people say by now. A metric that was measured late is the state's.

    ``said`` is what was read a moment ago; None reads it.

    Raises:
        OSError: if a remote store does not answer.

    """
    said = notes.read(run.store, run.depth) if said is None else said
    known = [*ledger.entries, *ledger.preempted, *([ledger.last] if ledger.last is not None else [])]
    if not said and not said.problems and not any(entry.pinned or entry.tags for entry in known):
        return ledger
    monitor = run.settings.monitor
    return replace(
        ledger,
        entries=tuple(_with(entry, said.of(entry.identity), monitor) for entry in ledger.entries),
        preempted=tuple(_with(entry, said.of(entry.identity), monitor) for entry in ledger.preempted),
        last=None if ledger.last is None else _with(ledger.last, said.of(ledger.last.identity), monitor),
    )


def _with(entry: Entry, said: Noted, monitor: str | None) -> Entry:
    score = said.metrics.get(monitor, entry.score) if monitor is not None else entry.score
    return replace(entry, pinned=said.pinned, tags=said.tags, metrics={**entry.metrics, **said.metrics}, score=score)


def entry_of(name: str, facts: Facts) -> Entry:
    """Return what a ledger says of a file by its manifest; without its score."""
    time: datetime | None = None
    with contextlib.suppress(ValueError):  # a manifest of another's making
        time = datetime.fromisoformat(facts.time)
    if time is not None and time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    identity = notes.identity(facts)
    return Entry(
        name, None, facts.step, facts.epoch, facts.sequence, metrics=facts.metrics, time=time, identity=identity
    )


def _metrics_of(settings: Settings, moment: Moment) -> dict[str, float]:
    """Return the metrics of this state: those that are ranked or waited for only if they were measured on it."""
    earlier = settings.watched - moment.measured
    return {name: value for name, value in moment.metrics.items() if name not in earlier}


def landed(plan: Plan, ledger: Ledger, *, with_last: bool) -> Ledger:
    """Return a ledger after a plan was carried out, which may have been made for an earlier one.

    ``with_last``: whether the file that it calls ``last`` was made as well.
    """
    names = {role: name for role, name in plan.names.items() if with_last or role != LAST}
    after = _after(ledger, plan, names)
    return replace(after, deferred=ledger.deferred, sequence=max(after.sequence, ledger.sequence))


def _after(ledger: Ledger, plan: Plan, names: Mapping[str, str]) -> Ledger:
    entry = plan.entry
    ledger = replace(ledger, sequence=entry.sequence)
    if RANKED in names:
        best = better_of(ledger.saved_best, plan.values)
        ledger = replace(ledger.with_entry(replace(entry, name=names[RANKED])), saved_best=best)
    if LAST in names:
        ledger = ledger.with_last(replace(entry, name=names[LAST]))
    if PREEMPTED in names:
        ledger = ledger.with_preempted(replace(entry, name=names[PREEMPTED]))
    return ledger


def _names(run: Run, ledger: Ledger, moment: Moment, verdict: Verdict, score: float | None) -> dict[str, str]:
    settings = run.settings
    names: dict[str, str] = {}
    if verdict.ranked:
        replaced = _replaced(settings, ledger, moment, score)
        # The name of a file that goes may be used again, unless the run resumed from it, somebody has pinned it, or
        # another save is on its way, whose commit would remove the file of that name.
        stays = replaced in run.protected or run.waiting
        held = partial(is_held, run, ledger.named(replaced))
        names[RANKED] = _free_name(run, settings.filename, moment, "" if stays else replaced, held=held)
    if verdict.exception:
        names[EXCEPTION] = _free_name(run, settings.filename, moment, "", prefix=EXCEPTION)
    if verdict.preempted:
        names[PREEMPTED] = _free_name(run, settings.filename, moment, "", prefix=PREEMPTED)
    if verdict.last:
        own = ledger.last.name if ledger.last is not None else ""
        names[LAST] = _free_name(run, settings.style.last, moment, own, taken=names.values())
    return names


def is_held(run: Run, entry: Entry | None) -> bool:
    """Tell whether a file must not be written over because of what is said of it; where that cannot be told, too.

    Under ``keep`` that is a tag or a late metric as well: the new file of the same state would not have them.
    """
    if entry is None or not entry.identity:
        return False
    try:
        said = notes.read_one(run.store, run.note_folders(entry.name), entry.identity)
    except OSError:
        return True
    return said.pinned or (run.settings.keep is not None and bool(said.tags or said.metrics))


def _replaced(settings: Settings, ledger: Ledger, moment: Moment, score: float | None) -> str:
    """Return the file that a ranked save will push out, whose name may be used again."""
    if settings.keep is not None:  # none but one of this very state, which is saved again as it was measured
        newest = max(ledger.entries, key=lambda entry: entry.sequence, default=None)
        same = newest is not None and newest.step == moment.step == ledger.ranked_step
        mine = newest is not None and newest.sequence > ledger.begun and not newest.pinned
        return newest.name if newest is not None and same and mine else ""
    if settings.monitor is None:
        newest = max(ledger.entries, key=lambda entry: entry.sequence, default=None)
        return newest.name if newest is not None else ""
    if score is None or not 0 < settings.save_top_k <= len(ledger.entries):
        return ""
    pushed_out = ranking.worst(ledger.entries, settings.mode)
    return pushed_out.name if pushed_out is not None else ""


def _free_name(  # noqa: PLR0913 - each is one thing that a name depends on
    run: Run,
    template: str | None,
    moment: Moment,
    reusable: str,
    *,
    prefix: str | None = None,
    taken: Iterable[str] = (),
    held: Callable[[], bool] = bool,
) -> str:
    settings = run.settings
    metrics = name_metrics(moment)
    counted = settings.enable_version_counter or prefix is not None
    version: int | None = None
    while True:
        name = file_name(
            template,
            metrics,
            settings.style,
            auto_insert=settings.auto_insert_metric_name,
            version=version,
            prefix=prefix,
        )
        check_inside(name, f"the template {template!r}")
        if name not in (*taken, *run.waiting, *run.given):
            reused = bool(reusable) and name == reusable and not held()  # asked only where it matters: that is a trip
            if reused or name in run.leaving or not run.store.exists(name):
                return name
        if not counted:
            return name
        version = settings.style.starting_version if version is None else version + 1


def name_metrics(moment: Moment) -> dict[str, float]:
    """Return the values that a name may use; an ``epoch`` or ``step`` that the user logged wins."""
    values = {"epoch": moment.epoch, "step": moment.step, **moment.metrics}
    for key in ("epoch", "step"):
        value = float(values[key])
        values[key] = int(value) if value.is_integer() else value
    return values


def _facts(run: Run, ledger: Ledger, moment: Moment, verdict: Verdict, names: Mapping[str, str]) -> Facts:
    settings = run.settings
    policy: dict[str, Any] = {
        "monitor": settings.monitor,
        "mode": settings.mode,
        "save_top_k": settings.save_top_k,
        "save_last": settings.save_last,
        **settings.notation,
    }
    if run.since:
        policy["since"] = run.since
    if settings.when.improvements:
        values = settings.when.values(measured_of(moment)) if verdict.ranked else {}
        policy["saved_best"] = better_of(ledger.saved_best, values)
    return Facts(
        step=moment.step,
        epoch=moment.epoch,
        sequence=ledger.sequence + 1,
        time=run.clock.now().isoformat(timespec="milliseconds"),
        metrics=_metrics_of(settings, moment),
        reason=verdict.reason,
        kind=run.kind,
        weights_only=settings.save_weights_only,
        run=run.run,
        owner=run.owner,
        names=dict(names),
        policy=policy,
        resumed_from=run.resumed_from,
        git_commit=git_commit(),
        versions=versions(),
    )
