"""One saver of shards for all that save from the same ranks: what it sends must come in one order on all of them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.ranks import Ranks

if TYPE_CHECKING:
    from holdfast.engine.sharded.saver import ShardedSaver


@dataclass
class _Shared:
    """The saver of some ranks, and who uses it."""

    ranks: Ranks
    saver: ShardedSaver
    users: dict[int, Any] = field(default_factory=dict)


_shared: dict[int, _Shared] = {}  # by the ranks


def lease_shards(user: object, ranks: Ranks, images: int = 1) -> ShardedSaver:
    """Return the saver of shards of these ranks, which all that save from them share.

    A user that is gone without ``release_shards`` counts no more.
    """
    from holdfast.engine.sharded.saver import ShardedSaver  # noqa: PLC0415 - slow to import, and for sharded states only

    key = id(ranks.behind)
    if key not in _shared:
        _shared[key] = _Shared(ranks, ShardedSaver(ranks, images))
    shared = _shared[key]
    shared.saver.allow(images)
    if id(user) not in shared.users:
        shared.users[id(user)] = weakref.finalize(user, shared.users.pop, id(user), None)
    return shared.saver


def release_shards(user: object, saver: ShardedSaver) -> None:
    """Wait until all is over, and say that this user is done; with the last one the memory goes."""
    saver.wait()
    for key, shared in list(_shared.items()):
        if shared.saver is saver:
            leaving = shared.users.pop(id(user), None)
            if leaving is not None:
                leaving.detach()
            if not shared.users:
                del _shared[key]
                saver.close()


def quiesce_shards() -> None:
    """Wait until all shards are committed or have failed. It is no collective: each rank waits for its own part."""
    for shared in list(_shared.values()):
        shared.saver.wait()
