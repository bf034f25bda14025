"""What a checkpoint tells of itself that has no manifest: by the keys that Lightning and others give it."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import torch

from holdfast.front.weights import OPTIMIZERS
from holdfast.records import LIGHTNING, Facts, Manifest
from holdfast.storage import is_local, plain_path

_CALLBACK = "ModelCheckpoint"
_MODES = ("min", "max")


def facts_of(state: Any, manifest: Manifest | None, path: str, place: str = "") -> Facts:
    """Return the facts of a checkpoint: its manifest's, or what can be known without one.

    Args:
        state: what the file holds.
        manifest: its manifest, if it has one.
        path: where the file is; of a local one the time of writing counts.
        place: the entry of the state that has the weights; "" where they are the state.

    """
    if manifest is not None:
        return manifest.facts
    if not isinstance(state, Mapping) or not place:
        return Facts(time=_written(path), weights_only=True)
    metrics, policy = _ranking(state.get("callbacks"), path)
    return Facts(
        step=_count(state.get("global_step", state.get("step"))),
        epoch=_count(state.get("epoch")),
        time=_written(path),
        metrics=metrics,
        kind="lightning" if LIGHTNING in state else "torch",
        weights_only=not any(name in state for name in OPTIMIZERS),
        policy=policy,
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _written(path: str) -> str:
    """Return when a file was last written; now for one of which that cannot be known."""
    moment = datetime.now(timezone.utc)
    if is_local(path) and os.path.exists(plain_path(path)):
        moment = datetime.fromtimestamp(os.stat(plain_path(path)).st_mtime, timezone.utc)
    return moment.isoformat(timespec="milliseconds")


def _ranking(callbacks: Any, path: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics that the states of Lightning's ``ModelCheckpoint`` know, and the policy of the first."""
    metrics: dict[str, float] = {}
    policy: dict[str, Any] = {}
    for key, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if not str(key).startswith(_CALLBACK) or not isinstance(state, Mapping):
            continue
        monitor, score = state.get("monitor"), _score(state, path)
        if not isinstance(monitor, str) or score is None:
            continue
        metrics.setdefault(monitor, score)
        policy = policy or {"monitor": monitor, "mode": _mode(str(key)), "save_top_k": -1}
    return metrics, policy


def _score(state: Mapping[str, Any], path: str) -> float | None:
    """Return the score of this file: as it stands among the best, else the newest one."""
    best = state.get("best_k_models")
    name = os.path.basename(path)
    own = [score for file, score in best.items() if os.path.basename(str(file)) == name] if best else []
    value = own[0] if own else state.get("current_score")
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _mode(key: str) -> str:
    """Return the mode that stands in a callback's key, ``ModelCheckpoint{'monitor': ..., 'mode': 'max', ...}``."""
    try:
        words = ast.literal_eval(key[key.index("{") :])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return "min"
    mode = words.get("mode") if isinstance(words, dict) else None
    return mode if mode in _MODES else "min"
