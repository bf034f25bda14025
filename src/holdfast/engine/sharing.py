"""One saver for all that save from a thread: its memory is bounded for all of them together."""

from __future__ import annotations

import threading
import weakref

from holdfast.engine.saver import Saver
from holdfast.engine.shard_sharing import quiesce_shards

_shared: dict[int, Saver] = {}  # by the thread that trains


def lease(user: object, images: int = 1) -> Saver:
    """Return this thread's saver, which all that save from it share: its memory is bounded for all of them together.

    A user that is gone without ``release`` counts no more.
    """
    thread = threading.get_ident()
    if thread not in _shared:
        _shared[thread] = Saver()
    saver = _shared[thread]
    saver.users[id(user)] = weakref.finalize(user, _forget, saver, id(user))
    saver.allow(images)
    return saver


def release(user: object, saver: Saver) -> None:
    """Wait until all is over, and say that this user is done; with the last one the memory goes."""
    saver.wait()
    leaving = saver.users.pop(id(user), None)
    if leaving is not None:
        leaving.detach()
    if not saver.users:
        saver.close()
        _retire(saver)


def quiesce() -> None:
    """Wait until all that saves from this thread, and all shards, are committed or have failed: none reads a tensor."""
    saver = _shared.get(threading.get_ident())
    if saver is not None:
        saver.wait()
    quiesce_shards()


def _forget(saver: Saver, user: int) -> None:
    """On any thread: what is on its way goes on; the next one who saves begins afresh."""
    saver.users.pop(user, None)
    if not saver.users:
        _retire(saver)


def _retire(saver: Saver) -> None:
    for thread, known in list(_shared.items()):
        if known is saver:
            del _shared[thread]
