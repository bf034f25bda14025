"""What people say of the checkpoints of a run, as the run takes note of it: pins, tags, late metrics.

It looks before a save that may push another one out, when it is committed, at a resume (``planning.with_notes``), and
at a pin once more just before a file is removed. Where nobody has said anything, a look costs one question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast import notes
from holdfast.errors import UNTOUCHED, SaveError
from holdfast.front.planning import Run, is_held
from holdfast.policy.ledger import Entry, Ledger
from holdfast.records import Noted
from holdfast.scanning import look


def is_pinned(run: Run, ledger: Ledger, name: str) -> bool:
    """Rank 0 only: tell whether a checkpoint is pinned at this moment.

    Raises:
        OSError: if a remote store does not answer.

    """
    return said_of(run, ledger, name).pinned


def said_of(run: Run, ledger: Ledger, name: str) -> Noted:
    """Rank 0 only: return what is said of a checkpoint at this moment.

    Raises:
        OSError: if a remote store does not answer.

    """
    identity = _identity_of(run, ledger, name)
    return notes.read_one(run.store, run.note_folders(name), identity) if identity else Noted()


def consent_to(run: Run, ledger: Ledger, name: str) -> Callable[[], None] | None:
    """Return what a save under a name that a checkpoint has is to ask just before its commit; None for a free name.

    The name was given to it when the save began, and since then somebody may have pinned what it would replace.
    """
    entry = ledger.named(name)
    if entry is None or not run.settings.enable_version_counter:  # without a counter no other name could be taken
        return None

    def ask() -> None:
        if is_held(run, entry):
            path = run.store.path(name)
            msg = (
                f"the checkpoint {path} was not saved: what has this name was pinned, tagged or measured while it was "
                f"being written, and stays. The next save takes another name. {UNTOUCHED}"
            )
            raise SaveError(msg, path=path)

    return ask


def forget_notes(run: Run, now: Ledger, before: Ledger, name: str) -> None:
    """Rank 0 only: remove what is said of a checkpoint that was removed, if no other name of its save is left.

    Args:
        run: the run.
        now: what is committed.
        before: what was when the removal was decided.
        name: what was removed.

    Raises:
        OSError: if that cannot be done; the next start of the run does it then.

    """
    entry = _named(now, name) or _named(before, name)
    if entry is None or not entry.identity:
        return
    if not any(other.name != name and other.identity == entry.identity for other in _all(now)):
        for folder in run.note_folders(name):
            notes.forget(run.store, folder, entry.identity)


def _identity_of(run: Run, ledger: Ledger, name: str) -> str:
    entry = _named(ledger, name)
    if entry is not None:
        return entry.identity
    facts = look(run.store, name).facts
    return "" if facts is None else notes.identity(facts)


def _named(ledger: Ledger, name: str) -> Entry | None:
    return next((entry for entry in _all(ledger) if entry.name == name), None)


def _all(ledger: Ledger) -> Iterable[Entry]:
    return (*ledger.entries, *ledger.preempted, *([ledger.last] if ledger.last is not None else []))
