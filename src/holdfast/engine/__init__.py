"""Saving and loading: what "committed" means, and what is refused."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.into import Into
from holdfast.engine.keys import keygen
from holdfast.engine.load import load, load_into
from holdfast.engine.order import Order, SaveStats
from holdfast.engine.saver import Saver
from holdfast.engine.sharing import lease, quiesce, release
from holdfast.engine.signing import sign, verify
from holdfast.snapshot import is_sharded

if TYPE_CHECKING:
    from holdfast.engine.sharded.flying import ShardedFlight
    from holdfast.engine.sharded.loading import load_sharded, read_sharded
    from holdfast.engine.sharded.resting import read_metadata
    from holdfast.engine.sharded.saver import ShardedSaver, write_sharded
    from holdfast.engine.sharded.whole import Whole

__all__ = [
    "Into",
    "Order",
    "SaveStats",
    "Saver",
    "ShardedFlight",
    "ShardedSaver",
    "Whole",
    "is_sharded",
    "keygen",
    "lease",
    "load",
    "load_into",
    "load_sharded",
    "quiesce",
    "read_metadata",
    "read_sharded",
    "release",
    "sign",
    "verify",
    "write_checkpoint",
    "write_sharded",
]

# They import torch.distributed, which takes its time: one process does not need it.
_LAZY = {
    "ShardedFlight": "holdfast.engine.sharded.flying",
    "ShardedSaver": "holdfast.engine.sharded.saver",
    "Whole": "holdfast.engine.sharded.whole",
    "load_sharded": "holdfast.engine.sharded.loading",
    "read_metadata": "holdfast.engine.sharded.resting",
    "read_sharded": "holdfast.engine.sharded.loading",
    "write_sharded": "holdfast.engine.sharded.saver",
}


def __getattr__(name: str) -> Any:
    """Import the rest on first use."""
    if name not in _LAZY:
        msg = f"module 'holdfast.engine' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_LAZY[name]), name)
