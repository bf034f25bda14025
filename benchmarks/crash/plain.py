"""Savers that are a function of a state and a path: ``torch.save``, safetensors, ``torch.distributed.checkpoint``."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from benchmarks.crash.content import SMALL, WIDE, state_at

State = dict[str, Any]
warnings.filterwarnings("ignore", "torch.distributed is disabled")


@dataclass(frozen=True)
class Plain:
    """One of them.

    Attributes:
        suffix: of the names it writes.
        save: writes a state under a path; what it returns is called to wait for the end, if it is not None.
        load: gives it back.

    """

    suffix: str
    save: Callable[[State, str], Callable[[], Any] | None]
    load: Callable[[str], State]


def _torch_save(state: State, path: str) -> None:
    torch.save(state, path)


def _torch_load(path: str) -> State:
    loaded: State = torch.load(path, weights_only=True)
    return loaded


def _safetensors_save(state: State, path: str) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415 - where it is installed

    save_file(state, path)


def _safetensors_load(path: str) -> State:
    from safetensors.torch import load_file  # noqa: PLC0415 - where it is installed

    loaded: State = load_file(path)
    return loaded


def _dcp_save(state: State, path: str) -> None:
    dcp.save(state, checkpoint_id=path, no_dist=True)


def _dcp_async_save(state: State, path: str) -> Callable[[], Any]:
    future: Any = dcp.async_save(state, checkpoint_id=path, no_dist=True)
    return getattr(future, "upload_completion", future).result  # type: ignore[no-any-return]


def _dcp_load(path: str) -> State:
    """Load into a state of the sizes that the checkpoint says it has, of the two that are ever saved."""
    size = dcp.FileSystemReader(path).read_metadata().state_dict_metadata["weight"].size[0]
    state = state_at(0, SMALL if size == SMALL else WIDE)
    dcp.load(state, checkpoint_id=path, no_dist=True)
    return state


SAVERS = {
    "torch.save": Plain(".pt", _torch_save, _torch_load),
    "safetensors save_file": Plain(".safetensors", _safetensors_save, _safetensors_load),
    "dcp.save": Plain(".dcp", _dcp_save, _dcp_load),
    "dcp.async_save": Plain(".dcp", _dcp_async_save, _dcp_load),
}


def run(tell: Callable[[Any], None], peer: str, scenario: str, folder: str, steps: int) -> None:
    """Save a few states as a plain loop does: under one name, the newest two, or all and ``last``."""
    torch.set_num_threads(1)
    saver = SAVERS[peer]
    os.makedirs(folder, exist_ok=True)
    waiting: list[tuple[Callable[[], Any], str, int]] = []
    for step in range(1, steps + 1):
        name = "model" if scenario == "overwritten" else f"step-{step}"
        names = [name, "last"] if scenario == "last" else [name]
        for path in (os.path.join(folder, item + saver.suffix) for item in names):
            _settle(waiting, tell)  # as the tutorial does: one save at a time
            wait = saver.save(state_at(step), path)
            waiting.append((wait or (lambda: None), path, step))
        old = os.path.join(folder, f"step-{step - 2}{saver.suffix}")
        if scenario == "top-k" and os.path.exists(old):
            _settle(waiting, tell)  # nothing is removed before the next is there
            shutil.rmtree(old) if os.path.isdir(old) else os.unlink(old)
    _settle(waiting, tell)


def _settle(waiting: list[tuple[Callable[[], Any], str, int]], tell: Callable[[Any], None]) -> None:
    for wait, path, step in waiting:
        wait()
        tell({"saved": path, "step": step})
    waiting.clear()
