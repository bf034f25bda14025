"""Saving and loading: what "committed" means, and what is refused."""

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.load import load, verify
from holdfast.engine.order import Order, SaveStats
from holdfast.engine.saver import Saver
from holdfast.engine.sharing import lease, release

__all__ = ["Order", "SaveStats", "Saver", "lease", "load", "release", "verify", "write_checkpoint"]
