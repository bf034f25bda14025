"""What stands under one name behind a URL, from one listing; its removal, in as few requests as its order allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from holdfast.storage.contract import SEAL, Blob
from holdfast.storage.doubt import already_done
from holdfast.storage.marks import mark_of
from holdfast.storage.remote import bundles
from holdfast.storage.standing import Standing

if TYPE_CHECKING:
    from holdfast.storage.remote.store import RemoteStore


def stands(store: RemoteStore, name: str, endings: Collection[str]) -> Standing:
    """List the keys that begin with the name's. Where there are none a look has the last word: listings may be stale.

    One request for a thousand keys; two more where nothing is.
    """
    start, folder = len(store.base) + 1, f"{name}/"
    found = {item.key[start:]: item for item in store.objects.list(store.key(name))}
    inside = ((key[len(folder) :], item) for key, item in sorted(found.items()) if key.startswith(folder))
    right = tuple(Blob(file, item.size, stamp=item.etag) for file, item in inside if file and "/" not in file)
    file, seal = found.get(name), found.get(folder + SEAL) if bundles.may_be_bundle(name) else None
    beside = frozenset(each for each in (name, *(name + ending for ending in endings)) if each in found)
    blob = None
    if seal is not None and (file is None or not bundles.is_newer(file, seal)):
        blob = Blob(name, seal.size, bundle=True, stamp=seal.etag)
    elif file is not None:
        blob = Blob(name, file.size, stamp=file.etag)
    elif not right:
        blob = _looked_at(store, name)
    return Standing(name, blob, right, beside)


def _looked_at(store: RemoteStore, name: str) -> Blob | None:
    for key in (name, f"{name}/{SEAL}")[: 1 + bundles.may_be_bundle(name)]:
        try:
            head = store.objects.head(store.key(key))
        except FileNotFoundError:
            continue
        return Blob(name, head.size, bundle=key != name, stamp=head.etag)
    return None


def discard(store: RemoteStore, name: str, endings: Collection[str], known: Standing | None) -> None:
    """Remove a blob: of a bundle first the seal, from then on there is none; then all else in one request.

    What another save of this process is about to put in a bundle's place stays.
    """
    there = stands(store, name, endings) if known is None else known
    files, gone = [file.name for file in there.files], sorted(there.beside)
    if SEAL in files or (there.blob is not None and there.blob.bundle):
        store.objects.remove([store.key(f"{name}/{SEAL}")])
        rest = [file for file in files if file != SEAL and not bundles.is_living(mark_of(file))]
        gone += [f"{name}/{file}" for file in rest]
    elif not files:  # some servers take no file's name for a request where there is a folder
        gone = [name, *(each for each in gone if each != name)]
    store.objects.remove([store.key(each) for each in gone])


def end_bundle(store: RemoteStore, name: str) -> None:
    """Remove the bundle whose name a file has taken: until then it is the bundle that the name stands for, or may be.

    One request, unless it is known that there is none; or none for a name that no bundle has.
    """
    if not bundles.may_be_bundle(name) or bundles.is_ours(name.rpartition("/")[2]):
        return
    if store.is_claimed_here and bundles.has_none(store.key(name)):
        return
    with already_done():  # the file is there, and counts if there was no bundle
        try:
            store.objects.head(store.key(f"{name}/{SEAL}"))
        except FileNotFoundError:
            note_no_bundle(store, name)
        else:
            remove_bundle(store, name)


def note_no_bundle(store: RemoteStore, name: str) -> None:
    """Take note that no bundle has a name just now. In a prefix of ours that stays so until a draft of ours begins."""
    if store.is_claimed_here:
        bundles.note_none(store.key(name))


def remove_bundle(store: RemoteStore, name: str) -> None:
    """Remove the files of a bundle, the seal first, and leave the file that has its name."""
    store.objects.remove([store.key(f"{name}/{SEAL}")])
    rest = [file.name for file in stands(store, name, ()).files if not bundles.is_living(mark_of(file.name))]
    store.objects.remove([store.key(f"{name}/{file}") for file in rest])
