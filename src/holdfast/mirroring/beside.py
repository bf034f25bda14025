"""From one prefix of a server to another: the server copies, once the bytes have been read and found right."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from holdfast.mirroring.sending import Parcel, Way
from holdfast.storage import Store

if TYPE_CHECKING:
    from holdfast.storage.remote.store import RemoteStore


def copied_beside(way: Way, source: Store, parcel: Parcel) -> bool:
    """Have the server copy a blob, if source and target are its own; tell whether it did: else it has to be sent.

    The bytes are read and checked first, and the copy counts if the blob is the same before and after it.

    Raises:
        DamagedCheckpointError: if the source is not as it was saved. What the target had is untouched.
        FileNotFoundError: if the source has it no more.
        InterruptedError: if it was stopped.
        OSError: if the server does not do it.

    """
    near = _pair(source, way.target)
    if near is None:
        return False
    origin, goal = near
    before = origin.stamp(parcel.name)
    if before is None:
        return False
    for _ in parcel.passing.blocks():
        if way.stop.is_set():
            raise InterruptedError
    parcel.check()
    goal.copy_in(origin.key(parcel.name), parcel.name, parcel.passing.size)
    if origin.stamp(parcel.name) != before:  # it is not known what was copied: it is sent, and written over
        parcel.passing.restart()
        return False
    way.progress(parcel.passing.size)
    return True


def _pair(source: Store, target: Store) -> tuple[RemoteStore, RemoteStore] | None:
    """Return both stores if they are of one S3 server, as it is reached by the same credentials."""
    kind = getattr(sys.modules.get("holdfast.storage.remote.store"), "RemoteStore", None)  # else neither is one
    if kind is None or not (isinstance(source, kind) and isinstance(target, kind)):
        return None
    mine, theirs = (_innermost(store) for store in (source, target))
    fs = getattr(mine, "fs", None)
    same = type(mine).__name__ == "S3Objects" and type(mine) is type(theirs) and fs is getattr(theirs, "fs", None)
    return (source, target) if same else None


def _innermost(store: RemoteStore) -> object:
    objects: object = store.objects
    while hasattr(objects, "inner"):
        objects = objects.inner
    return objects
