"""Saving and loading: what "committed" means, and what is refused."""

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.into import Into
from holdfast.engine.load import load, load_into, verify
from holdfast.engine.order import Order, SaveStats
from holdfast.engine.saver import Saver
from holdfast.engine.sharing import lease, quiesce, release

__all__ = [
    "Into",
    "Order",
    "SaveStats",
    "Saver",
    "lease",
    "load",
    "load_into",
    "quiesce",
    "release",
    "verify",
    "write_checkpoint",
]
