"""What retention has to know of pins, and what becomes of the notes of checkpoints that go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from holdfast import notes
from holdfast.format.signature import SUFFIX
from holdfast.records import Facts, Noted
from holdfast.scanning import EXTENSION, survey
from holdfast.storage import Store

_DEPTH = 100  # folders below a directory: any number that people nest runs in


def let_go(store: Store, name: str, facts: Facts, remove: Callable[[str], object]) -> bool:
    """Remove a checkpoint unless somebody has pinned it; return whether it is gone. Then forget what was said of it.

    Pins made up to this moment count: who pins holds the file meanwhile, and it is removed while nobody does. On a
    store without locks there is an instant between the look and the removal.

    Args:
        store: where it lies.
        name: its file.
        facts: what its manifest says.
        remove: removes, or retires, the file of a name.

    Raises:
        OSError: if it could not be removed, or what was said of it could not.

    """
    said = Noted()
    with holding(store, name) as free:
        if not free and store.exists(name):
            return False  # somebody says something of it just now: the next retention decides again
        said = said_now(store, name, facts)
        if said.pinned:
            return False
        remove(name)
    if said != Noted() or store.is_local:  # a trip for what came in the instant between, which the next start sweeps
        forget_if_gone(store, name, facts)
    return True


def holding(store: Store, name: str) -> AbstractContextManager[bool]:
    """Hold a file alone, where there are locks; no question elsewhere."""
    return store.hold(name, alone=True) if store.is_local else nullcontext(enter_result=True)


def said_now(store: Store, name: str, facts: Facts) -> Noted:
    """Return what is said of a checkpoint at this moment."""
    identity = notes.identity(facts)
    return notes.read_one(store, notes.folders_of(name, facts), identity) if identity else Noted()


def forget_if_gone(store: Store, name: str, facts: Facts) -> None:
    """Forget what was said of a checkpoint that was removed, unless another name of the same save is there."""
    identity = notes.identity(facts)
    folders = notes.folders_of(name, facts)
    if not identity or any(_is_there(store, name, facts, other) for other in facts.names.values()):
        return
    for folder in folders:
        notes.forget(store, folder, identity)


def _is_there(store: Store, name: str, facts: Facts, other: str) -> bool:
    """Tell whether another name of the same save has a file, whatever that is."""
    for mine in facts.names.values():
        if f"/{name}".endswith(f"/{mine}") and ".." not in other.split("/"):
            return store.exists(name[: len(name) - len(mine)] + other)
    return True  # it was renamed: where the others are, or whether, cannot be told


def forget_all_gone(store: Store, depth: int = 0) -> list[str]:
    """Forget what was said of checkpoints that are no more; return their identities.

    What a process that died between the two has left. Not what is pinned, which no retention removes: whoever took
    the file away may bring it back. And nothing at all while a file is there that cannot say what it is.
    """
    said = notes.known(store, depth)  # before the listing of the files: what is committed and pinned since is not there
    if not said:
        return []
    seen = survey(store, depth=_DEPTH)  # deeper than the notes: people put files into folders
    others = [] if store.is_local else store.blobs(_DEPTH)  # of a remote store the listing looks at one extension alone
    if (
        seen.aside
        or any(item.problem for item in seen.found)
        or any(not blob.name.endswith((EXTENSION, SUFFIX)) for blob in others)
    ):
        return []
    living = {notes.identity(item.facts) for item in seen.found if item.facts is not None}
    gone = [identity for identity in said if identity not in living]
    gone = [identity for identity in gone if not notes.read_one(store, said[identity], identity).pinned]
    for identity in gone:
        for folder in said[identity]:
            notes.forget(store, folder, identity)
    return gone
