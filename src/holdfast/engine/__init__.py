"""Saving and loading: what "committed" means, and what is refused."""

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.load import load, verify

__all__ = ["load", "verify", "write_checkpoint"]
