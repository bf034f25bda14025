"""One saver for all that save in a process: its memory is bounded for all of them together."""

from __future__ import annotations

import weakref

from holdfast.engine.saver import Saver

_shared: list[Saver] = []


def lease(user: object, images: int = 1) -> Saver:
    """Return the process's saver, which all that save share: its memory is bounded for all of them together.

    A user that is gone without ``release`` counts no more.
    """
    if not _shared:
        _shared.append(Saver())
    saver = _shared[0]
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
    """Wait until nothing that saves in this process reads any tensor."""
    for saver in _shared:
        saver.wait()


def _forget(saver: Saver, user: int) -> None:
    """On any thread: what is on its way goes on; the next one who saves begins afresh."""
    saver.users.pop(user, None)
    if not saver.users:
        _retire(saver)


def _retire(saver: Saver) -> None:
    if saver in _shared:
        _shared.remove(saver)
