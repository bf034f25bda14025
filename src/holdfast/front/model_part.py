"""Which part of a checkpoint's state is the model, and which is for going on with the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from holdfast.errors import ConfigurationError, printable

_MODEL = ("state_dict", "model_state_dict", "model", "module")  # the keys that people give it, in this order
_TRAINING = frozenset({
    "MixedPrecision", "amp_scaling_state", "averaging_state", "batches", "callbacks", "current_model_state",
    "deferred", "loops", "lr_scheduler", "lr_schedulers", "native_amp_scaling_state", "next_epoch", "optimizer",
    "optimizer_state_dict", "optimizer_states", "optimizers", "rng", "scaler", "scheduler", "scheduler_state_dict",
    "stateful",
})  # fmt: skip


def model_key(state: object, path: str, key: str | None) -> str:
    """Return the key of the model's state dict in a state; "" where the state is that itself.

    Raises:
        ConfigurationError: if there is none under the key that was asked for, or under none of the usual ones.

    """
    items = state if isinstance(state, Mapping) else {}
    for name in _MODEL if key is None else (key,):
        if _is_model(items.get(name)):
            return name
    if key is None and _is_model(items) and all(isinstance(item, torch.Tensor) for item in items.values()):
        return ""
    has = ", ".join(map(repr, items)) or "nothing"
    wanted = "any of " + ", ".join(map(repr, _MODEL)) if key is None else repr(key)
    msg = f"{path} has no state dict of a model under {wanted}; its keys are {has}: pass the right one as `key`"
    raise ConfigurationError(printable(msg))


def _is_model(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, torch.Tensor) for item in value.values())


def model_of(state: Any, key: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the model, by their names in its state dict."""
    model = state[key] if key else state
    return {name: item for name, item in model.items() if isinstance(item, torch.Tensor)}


def without_training(state: Any, key: str) -> Any:
    """Return a state without what only a training that goes on needs: of optimizers, schedulers, loops, callbacks."""
    if not key:
        return state
    return {name: item for name, item in state.items() if name == key or not _is_training(name, item)}


def _is_training(name: object, value: object) -> bool:
    several = value if isinstance(value, (list, tuple)) else (value,)
    optimizers = [isinstance(item, Mapping) and {"state", "param_groups"} <= set(item) for item in several]
    return name in _TRAINING or (bool(optimizers) and all(optimizers))
