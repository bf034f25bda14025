"""The state of the random number generators, in types that torch's safe loader reads."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, torch's and, where it is loaded, NumPy's generators."""
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],  # a list's pickle changes its length
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, position, has_gauss, cached = numpy.random.get_state()
        key_tensor = torch.from_numpy(keys.astype("int64"))
        state["numpy"] = [name, key_tensor, int(position), int(has_gauss), float(cached)]
    return state


def restore_rng(state: dict[str, Any]) -> list[str]:
    """Set the generators; return the names of those that could not be set here."""
    missed = []
    version, internal, gauss = state["python"]
    numbers = internal.tolist() if isinstance(internal, torch.Tensor) else internal  # 0.1 had a list
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"].cpu())
    if "numpy" in state:
        numpy = sys.modules.get("numpy")
        if numpy is None:
            missed.append("numpy")
        else:
            name, keys, position, has_gauss, cached = state["numpy"]
            keys = numpy.array(keys.tolist(), dtype=numpy.uint32)
            numpy.random.set_state((name, keys, position, has_gauss, cached))
    if "cuda" in state:
        if torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
            torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
        else:
            missed.append("cuda")
    return missed
