"""What is wrong with a remote place: what its server cannot do, what uploads hold that were not ended, who is there."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.front.finding import NOTE, WARNING, Finding
from holdfast.storage.remote import RemoteStore, abilities, dead_uploads, rivals


def remote_place(store: RemoteStore) -> Iterator[Finding]:
    """Yield what is to be said of a remote place: tried with small objects, which are removed again."""
    yield from _abilities(store)
    yield from _uploads(store)
    yield from _claims(store)


def _abilities(store: RemoteStore) -> Iterator[Finding]:
    found = abilities.thorough(store.objects, store.base)
    root = store.root
    if found.writing:
        what = f"nothing can be written here: {found.writing}; so nothing else could be tried"
        cure = "for reading that is fine; to train here, give these credentials the right to write, or choose another"
        yield Finding(WARNING, what, root, cure, "read-only")
        return
    if found.listing:
        what = f"its listings lag: {found.listing}. Two runs that start here at the same moment may not be noticed"
        yield Finding(WARNING, what, root, "give each run a prefix of its own", "listing")
    if not found.conditions:
        what = f"the server keeps no conditions on a put: {found.absent or found.match}"
        cure = "nothing: runs are told apart by their claims and a listing"
        yield Finding(NOTE, what, root, cure, "conditions")
    if found.uploads and store.objects.parts is not None:
        what = f"uploads that died cannot be listed: {found.uploads}"
        yield Finding(NOTE, what, root, "have the bucket remove them: a lifecycle rule, after some days", "uploads")


def _uploads(store: RemoteStore) -> Iterator[Finding]:
    found = dead_uploads.weighed(store.objects, dead_uploads.unfinished(store.objects, store.base))
    if found:
        size = sum(upload.size for upload in found)
        what = f"{len(found)} uploads in parts were begun and not ended; the server keeps {size} bytes of them"
        cure = "the next run here aborts those that are dead"
        yield Finding(NOTE, what, store.root, cure, "uploads")


def _claims(store: RemoteStore) -> Iterator[Finding]:
    for rival in rivals.rivals_of(store.objects, store.base):
        claimant = rival.claimant
        who = f"process {claimant.pid or '?'} on {claimant.host or '?'}, since {claimant.since or '?'}"
        path = store.path(rival.key[len(store.base) + 1 :])
        if claimant.is_dead:
            cure = "nothing: the next run takes it over"
            yield Finding(NOTE, f"the claim of a run that is dead: {who}", path, cure, "run-dead")
        else:
            cure = f"leave its prefix to it; if it is dead, the next run takes it over within {claimant.lease:.0f} s"
            yield Finding(NOTE, f"a run is alive here, or was not long ago: {who}", path, cure, "run-alive")
