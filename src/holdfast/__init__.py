"""Checkpoints for PyTorch training that never lose a run and never make it wait.

>>> from holdfast import Checkpointer, load, newest, verify

Under Lightning: ``from holdfast.lightning import ModelCheckpoint``, or ``holdfast.pytorch_lightning``
for the package of that name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast._version import __version__
from holdfast.clock import Clock, FakeClock, SystemClock
from holdfast.errors import (
    ChangedStateError,
    CheckpointNotFoundError,
    ConfigurationError,
    DamagedCheckpointError,
    DirectoryInUseError,
    HoldfastError,
    LoadError,
    MissingExtraError,
    MissingMetricError,
    NewerFormatError,
    SaveError,
    SignatureError,
    UnsafeCheckpointError,
)

if TYPE_CHECKING:
    from holdfast.engine import SaveStats, keygen, load, sign, verify
    from holdfast.front.average import Averaged, average
    from holdfast.front.checkpointer import Checkpointer
    from holdfast.front.comparing import diff
    from holdfast.front.difference import Difference
    from holdfast.front.opening import newest
    from holdfast.front.start import Skipped, Start
    from holdfast.front.tensors import TensorStatistics, statistics, tensor

__all__ = [
    "Averaged",
    "ChangedStateError",
    "CheckpointNotFoundError",
    "Checkpointer",
    "Clock",
    "ConfigurationError",
    "DamagedCheckpointError",
    "Difference",
    "DirectoryInUseError",
    "FakeClock",
    "HoldfastError",
    "LoadError",
    "MissingExtraError",
    "MissingMetricError",
    "NewerFormatError",
    "SaveError",
    "SaveStats",
    "SignatureError",
    "Skipped",
    "Start",
    "SystemClock",
    "TensorStatistics",
    "UnsafeCheckpointError",
    "__version__",
    "average",
    "diff",
    "keygen",
    "load",
    "newest",
    "sign",
    "statistics",
    "tensor",
    "verify",
]

# These import torch, which takes a second: the command does not need it to list a directory.
_LAZY = {
    "Averaged": "holdfast.front.average",
    "Checkpointer": "holdfast.front.checkpointer",
    "Difference": "holdfast.front.difference",
    "SaveStats": "holdfast.engine",
    "Skipped": "holdfast.front.start",
    "Start": "holdfast.front.start",
    "TensorStatistics": "holdfast.front.tensors",
    "average": "holdfast.front.average",
    "diff": "holdfast.front.comparing",
    "keygen": "holdfast.engine",
    "load": "holdfast.engine",
    "newest": "holdfast.front.opening",
    "sign": "holdfast.engine",
    "statistics": "holdfast.front.tensors",
    "tensor": "holdfast.front.tensors",
    "verify": "holdfast.engine",
}


def __getattr__(name: str) -> Any:
    """Import the rest on first use."""
    if name not in _LAZY:
        msg = f"module 'holdfast' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
