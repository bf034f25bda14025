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
    from holdfast.front.catalog import Catalog, catalog
    from holdfast.front.catalog import open_checkpoint as open  # noqa: A004 - as gzip.open: holdfast.open(path)
    from holdfast.front.checkpoint import Checkpoint
    from holdfast.front.checkpointer import Checkpointer
    from holdfast.front.opening import newest
    from holdfast.front.simulation import Course, Simulation, simulate
    from holdfast.front.start import Skipped, Start
    from holdfast.policy.budget import Within
    from holdfast.policy.rules import All, Best, EveryEpochs, EverySteps, Latest, Newer, Pinned
    from holdfast.policy.thinning import Thin
    from holdfast.policy.when import At, EverySeconds, OnImprovement, OnSignal

__all__ = [
    "All",
    "At",
    "Best",
    "Catalog",
    "ChangedStateError",
    "Checkpoint",
    "CheckpointNotFoundError",
    "Checkpointer",
    "Clock",
    "ConfigurationError",
    "Course",
    "DamagedCheckpointError",
    "DirectoryInUseError",
    "EveryEpochs",
    "EverySeconds",
    "EverySteps",
    "FakeClock",
    "HoldfastError",
    "Latest",
    "LoadError",
    "MissingExtraError",
    "MissingMetricError",
    "Newer",
    "NewerFormatError",
    "OnImprovement",
    "OnSignal",
    "Pinned",
    "SaveError",
    "SaveStats",
    "SignatureError",
    "Simulation",
    "Skipped",
    "Start",
    "SystemClock",
    "Thin",
    "UnsafeCheckpointError",
    "Within",
    "__version__",
    "catalog",
    "keygen",
    "load",
    "newest",
    "open",
    "sign",
    "simulate",
    "verify",
]

# Most of these import torch, which takes a second: the command does not need it to list a directory.
_LAZY = {
    "All": "holdfast.policy.rules",
    "At": "holdfast.policy.when",
    "Best": "holdfast.policy.rules",
    "Catalog": "holdfast.front.catalog",
    "Checkpoint": "holdfast.front.checkpoint",
    "Checkpointer": "holdfast.front.checkpointer",
    "Course": "holdfast.front.simulation",
    "EveryEpochs": "holdfast.policy.rules",
    "EverySeconds": "holdfast.policy.when",
    "EverySteps": "holdfast.policy.rules",
    "Latest": "holdfast.policy.rules",
    "Newer": "holdfast.policy.rules",
    "OnImprovement": "holdfast.policy.when",
    "OnSignal": "holdfast.policy.when",
    "Pinned": "holdfast.policy.rules",
    "SaveStats": "holdfast.engine",
    "Simulation": "holdfast.front.simulation",
    "Skipped": "holdfast.front.start",
    "Start": "holdfast.front.start",
    "Thin": "holdfast.policy.thinning",
    "Within": "holdfast.policy.budget",
    "catalog": "holdfast.front.catalog",
    "keygen": "holdfast.engine",
    "load": "holdfast.engine",
    "newest": "holdfast.front.opening",
    "open": "holdfast.front.catalog",
    "sign": "holdfast.engine",
    "simulate": "holdfast.front.simulation",
    "verify": "holdfast.engine",
}
_OTHERWISE = {"open": "open_checkpoint"}  # names that would hide one of Python's in their own module


def __getattr__(name: str) -> Any:
    """Import the rest on first use."""
    if name not in _LAZY:
        msg = f"module 'holdfast' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(_LAZY[name]), _OTHERWISE.get(name, name))
    globals()[name] = value
    return value
