"""The state of a sharded checkpoint for one process: every tensor whole, on one device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from holdfast.engine.sharded.loading import load_sharded
from holdfast.engine.unpickling import MapLocation
from holdfast.errors import ConfigurationError


def load_whole_state(
    path: str | os.PathLike[str], map_location: MapLocation, *, safe: bool, verify: bool, allow: Sequence[Any]
) -> Any:
    """Load as ``load`` does; on every rank that calls it, by itself.

    Raises:
        ConfigurationError: if it is to run whatever code the files name, or the tensors are to go to several devices.
        LoadError: as ``load``.

    """
    if not safe:
        msg = f"{os.fspath(path)} is sharded: it is only loaded safely. Pass allow=[...] with the classes that it needs"
        raise ConfigurationError(msg)
    if map_location is not None and not isinstance(map_location, (str, torch.device)):
        msg = f"`map_location` of a sharded checkpoint is one device, such as 'cuda:0', but got {map_location!r}"
        raise ConfigurationError(msg)
    state = load_sharded(path, allow=allow, verify=verify)
    device = torch.device(map_location or "cpu")
    return state if device.type == "cpu" else tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), state)
