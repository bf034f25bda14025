"""A moment of training, as the policy sees it: plain values, taken at one event."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.policy.seconds import NOTHING_SPENT, Spent


class Event(enum.Enum):
    """What has just happened in the training."""

    STEP = "step"
    VALIDATION_END = "validation end"
    EPOCH_END = "epoch end"
    TRAIN_END = "train end"
    EXCEPTION = "exception"
    SIGNAL = "signal"
    DEADLINE = "deadline"
    REQUEST = "request"


@dataclass(frozen=True)
class Moment:
    """One event with what is known at that time.

    Attributes:
        event: what has just happened.
        step: finished optimizer steps.
        epoch: the current epoch, from 0.
        elapsed: seconds since the time trigger was last due (or training began); None if unknown.
        spent: what saving has cost so far, for ``EverySeconds("auto")``.
        metrics: every metric known, as floats.
        fresh: whether the monitored metric was measured on this very state.
        measured: those of the metrics that rules and triggers look at which were.
        validated: whether a validation has run.
        validation_follows: whether one starts right after this event.
        epoch_closes: whether that validation is the one that closes the epoch, and epoch saves happen after it.
        saves_at_epoch_end: whether epoch saves happen at the end of the training epoch, not of
            the validation.

    """

    event: Event
    step: int
    epoch: int
    elapsed: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    fresh: bool = True
    measured: frozenset[str] = frozenset()
    validated: bool = False
    validation_follows: bool = False
    epoch_closes: bool = False
    saves_at_epoch_end: bool = True
    spent: Spent = NOTHING_SPENT
