"""What is wrong with the place: what its filesystem cannot do, how full it is, and who else is there."""

from __future__ import annotations

import os
from collections.abc import Iterator

from holdfast.front.catalog import Catalog
from holdfast.front.finding import NOTE, PROBLEM, WARNING, Finding
from holdfast.storage import RUN_LOCK, Store
from holdfast.storage.abilities import Abilities, probe
from holdfast.storage.holders import Holder, holder_of

_AMPLE = 3  # newest checkpoints that should still fit
_OTHER_DISK = "choose a directory on another filesystem"


def place(store: Store, catalog: Catalog) -> Iterator[Finding]:
    """Yield what is to be said of the place."""
    if not store.is_local:
        yield from _remote(store)
        return
    abilities = probe(store.root)
    if abilities.writing:
        what = f"nothing can be written here: {abilities.writing}; so nothing else could be tried"
        cure = "for reading that is fine; to train here, give this user the right to write, or choose another directory"
        yield Finding(WARNING, what, store.root, cure, "read-only")
    yield from _filesystem(store.root, abilities)
    yield from _space(store.root, catalog, abilities)
    yield from _owners(store, catalog)


def _remote(store: Store) -> Iterator[Finding]:
    from holdfast.front.ailing_remote import remote_place  # noqa: PLC0415 - fsspec is slow to import
    from holdfast.storage.remote import RemoteStore  # noqa: PLC0415 - the same

    if isinstance(store, RemoteStore):
        yield from remote_place(store)


def _filesystem(root: str, abilities: Abilities) -> Iterator[Finding]:
    broken = {
        "a rename over another file": abilities.replacing,
        "fsync of a file": abilities.syncing,
        "fsync of a directory": abilities.folder_syncing,
    }
    for what, why in broken.items():
        if why:
            text = f"the filesystem has no {what} ({why}): a power cut may cost checkpoints that were committed"
            yield Finding(PROBLEM, text, root, _OTHER_DISK, "filesystem")
    if abilities.locking:
        what = f"the filesystem has no locks ({abilities.locking}): two runs in one directory would not be noticed"
        yield Finding(WARNING, what, root, "give each run a directory of its own", "filesystem")
    if abilities.linking:
        what = f"the filesystem has no hard links ({abilities.linking}): `last` takes the space of one more checkpoint"
        yield Finding(NOTE, what, root, "nothing, where there is space", "filesystem")
    if abilities.direct:
        what = f"the filesystem has no O_DIRECT ({abilities.direct}): saves take more of the processor"
        yield Finding(NOTE, what, root, "nothing; a local disk (ext4, xfs, btrfs) is quicker", "filesystem")


def _space(root: str, catalog: Catalog, abilities: Abilities) -> Iterator[Finding]:
    newest = catalog.last()
    if newest is None or abilities.free is None:
        return
    if abilities.free < _AMPLE * newest.size:
        fits = abilities.free >= newest.size
        what = f"{abilities.free} bytes are free, and the newest checkpoint has {newest.size}"
        what += ": few more fit" if fits else ": the next one does not fit"
        cure = "free some space, or keep fewer (save_top_k, `holdfast prune`)"
        yield Finding(WARNING if fits else PROBLEM, what, root, cure, "space")


def _owners(store: Store, catalog: Catalog) -> Iterator[Finding]:
    folders = {"", *(checkpoint.folder for checkpoint in catalog)}
    for folder in sorted(folders):
        path = os.path.join(store.root, folder, RUN_LOCK)
        holder = holder_of(path)
        if holder is not None:
            yield _owner(path, holder)
        home = os.path.join(store.root, folder)
        if folder and os.path.isdir(home) and not os.access(home, os.W_OK):
            cure = "give this user the right to write there (chmod, chown), if it is to train there"
            yield Finding(WARNING, "a directory of a run in which this user may not write", home, cure, "read-only")


def _owner(path: str, holder: Holder) -> Finding:
    who = f"process {holder.pid or '?'} on {holder.host or '?'}, since {holder.since or '?'}"
    if holder.alive:
        return Finding(NOTE, f"a run is alive here: {who}", path, "leave its directory to it", "run-alive")
    if holder.alive is None:
        cure = "see whether it lives before you change anything here"
        return Finding(NOTE, f"a run may be alive here: {who}", path, cure, "run-alive")
    what = f"the lock of a run that is dead: {who}"
    return Finding(NOTE, what, path, "nothing: the next run takes it over", "run-dead")
