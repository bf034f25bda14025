"""Whether the monitored metric was measured on the model as it is now.

A trainer hands out the last value of every metric ever logged, however old. But a new measurement
is a new tensor (or the same one, changed in place), so a look at each pause tells when it changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class MetricWatch:
    """Looks at one metric again and again.

    Attributes:
        tick: how many batches have ended; advance it by one at each.

    """

    tick: int = 0
    _value: Any = None
    _version: int = 0
    _seen_at: int = -2
    _measured_step: int | None = None

    def look(self, value: Any, step: int) -> None:
        """Take note of the metric's value after ``step`` optimizer steps; None if there is none."""
        version = value._version if isinstance(value, torch.Tensor) else 0
        if not self._same(value, version):
            # A change is of this very step only if the previous batch was looked at as well.
            certain = self._seen_at >= self.tick - 1
            self._measured_step = step if certain else None
        self._value, self._version, self._seen_at = value, version, self.tick

    def is_fresh(self, step: int) -> bool:
        """Tell whether the value was measured after exactly ``step`` optimizer steps."""
        return self._measured_step == step

    def _same(self, value: Any, version: int) -> bool:
        if isinstance(value, torch.Tensor) and isinstance(self._value, torch.Tensor):
            # The trainer detaches anew at each access; the memory stays. Ours is held, so not reused.
            return value.data_ptr() == self._value.data_ptr() and version == self._version
        return value is self._value
