"""Saving and loading: what "committed" means, and what is refused."""

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.into import Into
from holdfast.engine.keys import keygen
from holdfast.engine.load import load, load_into
from holdfast.engine.order import Order, SaveStats
from holdfast.engine.saver import Saver
from holdfast.engine.sharing import lease, quiesce, release
from holdfast.engine.signing import sign, verify

__all__ = [
    "Into",
    "Order",
    "SaveStats",
    "Saver",
    "keygen",
    "lease",
    "load",
    "load_into",
    "quiesce",
    "release",
    "sign",
    "verify",
    "write_checkpoint",
]
