"""The values that travel between the layers. They hold facts and do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 1

MANIFEST_FILE = "holdfast.manifest"  # in a directory: its manifest, and the sign that it is one whole checkpoint

RANKED = "ranked"
LAST = "last"
EXCEPTION = "exception"
PREEMPTED = "preempted"

LIGHTNING = "pytorch-lightning_version"  # a state without it is none that ``load_from_checkpoint`` reads
LIGHTNING_FORM = "2.4.0"  # the version whose form the states have that others than Lightning lay out

IMPORTED = "imported"  # the run of what is imported, unless another is named: so that all are ranked together


@dataclass(frozen=True)
class Record:
    """One record of a checkpoint file: its name without the archive's prefix, bytes, CRC-32.

    Of a sharded checkpoint: one file in its directory.
    """

    name: str
    size: int
    crc32: int


@dataclass(frozen=True)
class TensorInfo:
    """What a tensor in a checkpoint is called, how it is shaped and which record holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    record: str


@dataclass(frozen=True)
class Lineage:
    """A checkpoint that another one comes from: its path as given, its step, its run."""

    path: str
    step: int | None = None
    run: str | None = None


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says of itself: the first line of its manifest.

    Attributes:
        step: finished optimizer steps.
        epoch: the epoch during which it was saved, counted from 0.
        sequence: how many saves its run had asked for before it; orders saves of one step.
        time: when it was saved, ISO 8601 in UTC.
        metrics: every metric known at that time, as floats.
        reason: why it was saved, for people.
        kind: ``"lightning"`` or ``"torch"``: who lays out the state.
        weights_only: whether the state has weights alone, so that training cannot resume from it.
        run: identifies the run; survives its resumes.
        owner: identifies the callback within the run (two may share a directory).
        names: the files this save made, relative to the checkpoint directory, by their role
            (``"ranked"``, ``"last"``, ``"exception"``, ``"preempted"``).
        policy: the settings that retention followed: ``monitor, mode, save_top_k, save_last``; where they were
            given, ``keep`` and ``save_when`` as they are written (``save_top_k`` is -1 then); with ``OnImprovement``
            the best values that were saved, ``saved_best``; after a resume with another policy, the sequence at that
            time, ``since``.
        resumed_from: what the run resumed from, if it did.
        sources: what it was computed from, if it was not trained: an average of others.
        git_commit: the commit of the code that trained it, where there is one.
        versions: of Python, torch, holdfast and the framework.
        ranks: how many ranks trained.

    """

    step: int = 0
    epoch: int = 0
    sequence: int = 0
    time: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    kind: str = "torch"
    weights_only: bool = False
    run: str = ""
    owner: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    resumed_from: Lineage | None = None
    sources: tuple[Lineage, ...] = ()
    git_commit: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 1


@dataclass(frozen=True)
class Manifest:
    """The whole manifest: the facts, every record with its digest, every tensor."""

    facts: Facts
    records: tuple[Record, ...]
    tensors: tuple[TensorInfo, ...]
    format: int = FORMAT_VERSION


@dataclass(frozen=True)
class Change:
    """One change to what people say of a checkpoint; what is empty changes nothing.

    Attributes:
        pin: whether it is pinned from now on; None leaves that as it is.
        tag: names that it is given.
        untag: names that are taken from it.
        note: a text that is added to its notes.
        metrics: values measured after the save; a later one of the same name wins.
        time: when the change was asked for, ISO 8601 in UTC.

    """

    pin: bool | None = None
    tag: tuple[str, ...] = ()
    untag: tuple[str, ...] = ()
    note: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    time: str = ""


@dataclass(frozen=True)
class Note:
    """A text that somebody has put beside a checkpoint, and when (ISO 8601 in UTC)."""

    text: str
    time: str = ""


@dataclass(frozen=True)
class Noted:
    """What people say of a checkpoint: all changes together.

    Attributes:
        pinned: whether it is to be kept whatever the rules say; true also if a change cannot be read.
        tags: its names, in the order in which they were given.
        notes: its texts, in that order.
        metrics: those measured after the save.
        damaged: the changes that cannot be read, each as its file and why.

    """

    pinned: bool = False
    tags: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
