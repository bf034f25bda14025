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
    from holdfast.front.checkpointer import Checkpointer
    from holdfast.front.exporting import Exported, export
    from holdfast.front.importing import Imported, import_checkpoint
    from holdfast.front.opening import newest
    from holdfast.front.start import Skipped, Start

__all__ = [
    "ChangedStateError",
    "CheckpointNotFoundError",
    "Checkpointer",
    "Clock",
    "ConfigurationError",
    "DamagedCheckpointError",
    "DirectoryInUseError",
    "Exported",
    "FakeClock",
    "HoldfastError",
    "Imported",
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
    "UnsafeCheckpointError",
    "__version__",
    "export",
    "import_checkpoint",
    "keygen",
    "load",
    "newest",
    "sign",
    "verify",
]

# These import torch, which takes a second: the command does not need it to list a directory.
_LAZY = {
    "Checkpointer": "holdfast.front.checkpointer",
    "Exported": "holdfast.front.exporting",
    "Imported": "holdfast.front.importing",
    "SaveStats": "holdfast.engine",
    "Skipped": "holdfast.front.start",
    "Start": "holdfast.front.start",
    "export": "holdfast.front.exporting",
    "import_checkpoint": "holdfast.front.importing",
    "keygen": "holdfast.engine",
    "load": "holdfast.engine",
    "newest": "holdfast.front.opening",
    "sign": "holdfast.engine",
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
