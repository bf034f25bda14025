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
    RankError,
    SaveError,
    SignatureError,
    UnsafeCheckpointError,
)

if TYPE_CHECKING:
    from holdfast.engine import SaveStats, keygen, load, sign, verify
    from holdfast.front.average import Averaged, average
    from holdfast.front.catalog import Catalog, catalog
    from holdfast.front.catalog import open_checkpoint as open  # noqa: A004 - as gzip.open: holdfast.open(path)
    from holdfast.front.checkpoint import Checkpoint
    from holdfast.front.checkpointer import Checkpointer
    from holdfast.front.comparing import diff
    from holdfast.front.difference import Difference
    from holdfast.front.doctor import Finding, doctor
    from holdfast.front.exporting import Exported, export
    from holdfast.front.importing import Imported, import_checkpoint
    from holdfast.front.moving import Copied, copy
    from holdfast.front.opening import newest
    from holdfast.front.pruning import Pruned, prune
    from holdfast.front.simulation import Course, Simulation, simulate
    from holdfast.front.start import Skipped, Start
    from holdfast.front.syncing import Synced, sync
    from holdfast.front.tensors import TensorStatistics, statistics, tensor
    from holdfast.front.verifying import Verified, verify_all
    from holdfast.policy.budget import Within
    from holdfast.policy.interval import expected_waste, optimal_interval
    from holdfast.policy.rules import All, Best, EveryEpochs, EverySteps, Latest, Newer, Pinned
    from holdfast.policy.seconds import EverySeconds
    from holdfast.policy.thinning import Thin
    from holdfast.policy.when import At, OnImprovement, OnSignal

__all__ = [
    "All",
    "At",
    "Averaged",
    "Best",
    "Catalog",
    "ChangedStateError",
    "Checkpoint",
    "CheckpointNotFoundError",
    "Checkpointer",
    "Clock",
    "ConfigurationError",
    "Copied",
    "Course",
    "DamagedCheckpointError",
    "Difference",
    "DirectoryInUseError",
    "EveryEpochs",
    "EverySeconds",
    "EverySteps",
    "Exported",
    "FakeClock",
    "Finding",
    "HoldfastError",
    "Imported",
    "Latest",
    "LoadError",
    "MissingExtraError",
    "MissingMetricError",
    "Newer",
    "NewerFormatError",
    "OnImprovement",
    "OnSignal",
    "Pinned",
    "Pruned",
    "RankError",
    "SaveError",
    "SaveStats",
    "SignatureError",
    "Simulation",
    "Skipped",
    "Start",
    "Synced",
    "SystemClock",
    "TensorStatistics",
    "Thin",
    "UnsafeCheckpointError",
    "Verified",
    "Within",
    "__version__",
    "average",
    "catalog",
    "copy",
    "diff",
    "doctor",
    "expected_waste",
    "export",
    "import_checkpoint",
    "keygen",
    "load",
    "newest",
    "open",
    "optimal_interval",
    "prune",
    "sign",
    "simulate",
    "statistics",
    "sync",
    "tensor",
    "verify",
    "verify_all",
]

# Most of these import torch, which takes a second: the command does not need it to list a directory.
_LAZY = {
    "All": "holdfast.policy.rules",
    "At": "holdfast.policy.when",
    "Averaged": "holdfast.front.average",
    "Best": "holdfast.policy.rules",
    "Catalog": "holdfast.front.catalog",
    "Checkpoint": "holdfast.front.checkpoint",
    "Checkpointer": "holdfast.front.checkpointer",
    "Copied": "holdfast.front.moving",
    "Course": "holdfast.front.simulation",
    "Difference": "holdfast.front.difference",
    "EveryEpochs": "holdfast.policy.rules",
    "EverySeconds": "holdfast.policy.seconds",
    "EverySteps": "holdfast.policy.rules",
    "Exported": "holdfast.front.exporting",
    "Finding": "holdfast.front.finding",
    "Imported": "holdfast.front.importing",
    "Latest": "holdfast.policy.rules",
    "Newer": "holdfast.policy.rules",
    "OnImprovement": "holdfast.policy.when",
    "OnSignal": "holdfast.policy.when",
    "Pinned": "holdfast.policy.rules",
    "Pruned": "holdfast.front.pruning",
    "SaveStats": "holdfast.engine",
    "Simulation": "holdfast.front.simulation",
    "Skipped": "holdfast.front.start",
    "Start": "holdfast.front.start",
    "Synced": "holdfast.front.syncing",
    "TensorStatistics": "holdfast.front.tensors",
    "Thin": "holdfast.policy.thinning",
    "Verified": "holdfast.front.verifying",
    "Within": "holdfast.policy.budget",
    "average": "holdfast.front.average",
    "catalog": "holdfast.front.catalog",
    "copy": "holdfast.front.moving",
    "diff": "holdfast.front.comparing",
    "doctor": "holdfast.front.doctor",
    "expected_waste": "holdfast.policy.interval",
    "export": "holdfast.front.exporting",
    "import_checkpoint": "holdfast.front.importing",
    "keygen": "holdfast.engine",
    "load": "holdfast.engine",
    "newest": "holdfast.front.opening",
    "open": "holdfast.front.catalog",
    "optimal_interval": "holdfast.policy.interval",
    "prune": "holdfast.front.pruning",
    "sign": "holdfast.engine",
    "simulate": "holdfast.front.simulation",
    "statistics": "holdfast.front.tensors",
    "sync": "holdfast.front.syncing",
    "tensor": "holdfast.front.tensors",
    "verify": "holdfast.engine",
    "verify_all": "holdfast.front.verifying",
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
