"""What a training leaves behind, as a plain value: predicted or real."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def plain(score: Any) -> str:
    """Return a score as text: NaN equals NaN, and a tensor equals a float."""
    return "" if score is None else str(float(score))


@dataclass(frozen=True)
class Outcome:
    """The directory and the attributes of the callback after the training.

    Attributes:
        files: the global step in each file, by name.
        best: ``best_model_path``; names are relative to the directory, "" where there is none.
        best_score: ``best_model_score``.
        best_k: ``best_k_models``.
        kth: ``kth_best_model_path``.
        kth_value: ``kth_value``.
        current_score: ``current_score``.
        last: ``last_model_path``.
        raised: whether training stopped because the monitored metric was missing.
        warned: whether there was a warning that it was missing.

    """

    files: dict[str, int] = field(default_factory=dict)
    best: str = ""
    best_score: str = ""
    best_k: dict[str, str] = field(default_factory=dict)
    kth: str = ""
    kth_value: str = "inf"
    current_score: str = ""
    last: str = ""
    raised: bool = False
    warned: bool = False

    def differences(self, other: Outcome) -> dict[str, tuple[Any, Any]]:
        """Return what differs, by attribute: here and there."""
        pairs = {part.name: (getattr(self, part.name), getattr(other, part.name)) for part in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
