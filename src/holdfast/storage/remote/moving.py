"""Another name for what is behind a URL, where nothing can be renamed: copied by the server, and then removed."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from holdfast.storage.contract import SEAL
from holdfast.storage.marks import mark_of
from holdfast.storage.remote import bundles
from holdfast.storage.remote.standing import discard, stands
from holdfast.storage.standing import Standing

if TYPE_CHECKING:
    from holdfast.storage.remote.store import RemoteStore


def move_by_copy(store: RemoteStore, name: str, target: str) -> None:
    """Give a blob another name in two steps: for a while it has both. For what nobody counts on by either.

    All bytes are kept, whatever they are: of a bundle every file in its folder, the seal last. Where it ends early,
    the old one is still there, and another call goes on.

    Raises:
        FileNotFoundError: if it is not there.
        OSError: if the server does not copy or remove it; or if it is another one by now.

    """
    there = stands(store, name, ())
    if there.blob is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such blob", store.path(name))
    store.check_claim()
    if there.blob.bundle:
        _copy_bundle(store, there, target)
    else:
        store.objects.copy(store.key(name), store.key(target))
    now = stands(store, name, ())
    if now != there:
        raise OSError(errno.EBUSY, "it was written anew while it was copied", store.path(name))
    discard(store, name, (), there)


def _copy_bundle(store: RemoteStore, there: Standing, target: str) -> None:
    files = [file.name for file in there.files if not bundles.is_living(mark_of(file.name))]
    for file in sorted(files, key=lambda file: file == SEAL):
        store.objects.copy(store.key(f"{there.name}/{file}"), store.key(f"{target}/{file}"))
