"""Saving and loading: what "committed" means, and what is refused."""

from holdfast.engine.commit import write_checkpoint
from holdfast.engine.load import load_checkpoint, verify_checkpoint

__all__ = ["load_checkpoint", "verify_checkpoint", "write_checkpoint"]
