"""Checkpoints that are passed over: named in a warning, set aside where damaged and ours, and never deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from holdfast.engine import verify
from holdfast.errors import ConfigurationError, DamagedCheckpointError, LoadError, printable
from holdfast.front.start import Skipped
from holdfast.scanning import Found, names_aside
from holdfast.storage import Store, is_own_place
from holdfast.storage.standing import Moving
from holdfast.telling import warn

_HAND = "it was saved by hand"
_OTHER = "it is of another run"
_NO_PROOF = "that is no proof that its bytes are not those that were saved"
_WHOLE = "at a second look all its bytes are as they were saved"


class _Met(NamedTuple):
    """A checkpoint that could not be used, and why."""

    item: Found
    error: Exception
    afar: bool = False


def checked_on_damage(value: Any) -> str:
    """Return the word.

    Raises:
        ConfigurationError: if it is none of the two.

    """
    if value not in ("skip", "raise"):
        msg = f"`on_damage` can be 'skip' or 'raise' but got {value!r}"
        raise ConfigurationError(msg)
    return str(value)


class PassingOver:
    """What a search for the newest whole checkpoint meets on its way, and what becomes of it.

    A file is set aside only if all of this holds: its bytes are proven not to be those that were saved, by a
    second look right before; it lies in the directory that is searched; it is of the run that goes on, or
    cannot say of which it is. What an I/O error hides, what a later holdfast wrote or what needs classes that
    are not allowed stays where it is.

    Attributes:
        stops: whether the first of them is raised rather than passed over.
        skipped: what was passed over, once ``settle`` was called.
        damaged: the names of those whose damage is proven, moved or not.

    """

    def __init__(self, store: Store | None = None, on_damage: str = "skip") -> None:
        """Look through a store, in which files may be set aside; None: change nothing."""
        self.stops = checked_on_damage(on_damage) == "raise"
        self.skipped: tuple[Skipped, ...] = ()
        self.damaged: set[str] = set()
        self._store = store
        self._met: list[_Met] = []

    def note(self, item: Found, error: Exception, *, afar: bool = False) -> None:
        """Pass a checkpoint over; one that is ``afar``, on a mirror, is left where it is.

        Raises:
            LoadError: if that is to stop the search; a file that is gone by now does not.

        """
        if not self.stops or isinstance(error, FileNotFoundError):
            self._met.append(_Met(item, error, afar))
        elif isinstance(error, LoadError):
            raise error
        else:
            msg = f"{item.path} cannot be read: {error}"
            raise LoadError(msg) from error

    def note_unreadable(self, found: Iterable[Found]) -> None:
        """Pass over those that do not even tell how old they are: each may be the newest.

        Raises:
            LoadError: as ``note``.

        """
        for item in found:
            if item.problem:
                self.note(item, _why(item))

    def note_told(self, found: Iterable[Found], *, afar: bool = False) -> None:
        """Pass over those that are damaged as far as a listing tells; none is read for it.

        Raises:
            LoadError: as ``note``.

        """
        for item in found:
            if item.damaged:
                record, _, problem = item.problem.partition(": ")
                self.note(item, DamagedCheckpointError(item.path, record, problem), afar=afar)

    def settle(self, run: str = "") -> None:
        """Warn of what was passed over, and set aside what may be.

        Args:
            run: the run that goes on; "": that of the newest checkpoint that was passed over.

        """
        met, self._met = sorted(self._met, key=lambda one: one.item.facts is None), []
        run = run or next((one.item.facts.run for one in met if one.item.facts is not None), "")
        for one in met:
            aside, left = self._set_aside(one, run)
            text = f"It is set aside as {aside}" if aside else f"It is left where it is: {left}" if left else ""
            warn(printable(f"passed over: {one.error} {text}".rstrip()))
            self.skipped += (Skipped(one.item.path, _reason(one.error), aside),)

    def _set_aside(self, one: _Met, run: str) -> tuple[str, str]:
        """Return where a file was set aside, or why it was not."""
        store, item = self._store, one.item
        if store is None or one.afar:
            return "", ""
        if not _is_proof(one):
            return "", _NO_PROOF
        self.damaged.add(item.name)
        if item.facts is not None and item.facts.run != run:
            return "", _OTHER if item.facts.run else _HAND
        if item.facts is not None and not run:
            return "", _HAND
        return self._move(store, item)

    def _move(self, store: Store, item: Found) -> tuple[str, str]:
        if not store.is_local and not is_own_place(store):
            return "", f"{store.root} does not belong to this process"
        stamp = store.stamp(item.name)
        if not isinstance(_why(item), DamagedCheckpointError) or store.stamp(item.name) != stamp:
            self.damaged.discard(item.name)
            return "", _WHOLE
        free = next(name for name in names_aside(item.name) if not store.exists(name))
        try:
            moved = _renamed(store, item.name, free)
        except OSError as error:
            # Only its name may not be durable yet, or the answer of a server was lost.
            moved = store.exists(free) and not store.exists(item.name)
            return (store.path(free), "") if moved else ("", f"it could not be renamed: {error}")
        return (store.path(free), "") if moved else ("", "it could not be renamed")


def _renamed(store: Store, name: str, free: str) -> bool:
    """Give a damaged checkpoint another name; tell whether it has it. Behind a URL: by a copy, and a removal."""
    if store.is_local or not isinstance(store, Moving):
        return store.move(name, free)
    store.move_by_copy(name, free)
    return True


def _why(item: Found) -> Exception:
    """Look at a whole file again; return what is wrong with it."""
    try:
        verify(item.path)
    except (LoadError, OSError) as error:
        return error
    return LoadError(f"{item.path} could not be read: {item.problem or 'it can be by now'}")


def _is_proof(one: _Met) -> bool:
    """Tell whether an error says that bytes are not those that were saved."""
    if not isinstance(one.error, DamagedCheckpointError):
        return False
    # Without a manifest only a checksum is proof: what is no checkpoint may be another program's file, and whole.
    return one.item.facts is not None or one.item.damaged or one.error.record.startswith("record ")


def _reason(error: Exception) -> str:
    if isinstance(error, DamagedCheckpointError):
        return f"damaged: {error.record}: {error.problem}"
    return str(error)
