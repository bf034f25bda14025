"""The public attributes in which users of ``ModelCheckpoint`` read the ranking."""

from __future__ import annotations

from collections.abc import Callable

import torch

from holdfast.front.standing import Standing


class RankingAttributes:
    """``best_model_path`` and its kin. Every path in them is a committed file.

    Attributes:
        best_model_path: the best committed checkpoint, or "".
        best_model_score: its score, a 0-dimensional tensor, or None.
        best_k_models: the scores of the kept checkpoints by path, oldest first.
        kth_best_model_path: the worst of them, once there are ``save_top_k``, or "".
        kth_value: its score; infinitely bad before that.
        last_model_path: the file that ``save_last`` wrote, or "".
        current_score: the score of the newest ranked checkpoint, or None.

    """

    best_model_path: str
    best_model_score: torch.Tensor | None
    best_k_models: dict[str, torch.Tensor]
    kth_best_model_path: str
    kth_value: torch.Tensor
    last_model_path: str
    current_score: torch.Tensor | None

    def _adopt(self, new: Standing, path: Callable[[str], str]) -> None:
        self.best_model_path = path(new.best)
        self.best_model_score = score_tensor(new.best_score)
        self.best_k_models = {path(name): as_tensor(score) for name, score in new.best_k.items()}
        self.kth_best_model_path = path(new.kth)
        self.kth_value = as_tensor(new.kth_value)
        self.last_model_path = path(new.last)
        self.current_score = score_tensor(new.current_score)


def as_tensor(score: float) -> torch.Tensor:
    """Return a score as float32, which metrics usually are, where that holds it exactly."""
    narrow = torch.tensor(score, dtype=torch.float32)
    exact = float(narrow) == score or score != score  # noqa: PLR0124 - NaN
    return narrow if exact else torch.tensor(score, dtype=torch.float64)


def score_tensor(score: float | None) -> torch.Tensor | None:
    """Return a score as a tensor, or None."""
    return None if score is None else as_tensor(score)
