"""Loads, until the model's parameters and the optimizer's moments hold the values: python -m benchmarks.load.

Cold: the file has been thrown out of the page cache. Warm: it has just been read. What maps a file into
memory has loaded nothing yet, so its tensors are copied into those of the model; what reads into new
tensors hands them over (``assign=True``). Only holdfast checks what it reads.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load_file

from benchmarks import limits, measure, ours, peers, peers_dcp, plots, report, usage
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.saver import Variant
from benchmarks.states import LARGE, SMALL, Size, State, Training

COLUMNS = (
    Column("cold", "cold ms", 1, 1e3, quartiles=True),
    Column("cold_of_limit", "x cold limit", 2),
    Column("warm", "warm ms", 1, 1e3, quartiles=True),
    Column("warm_of_limit", "x warm limit", 2),
    Column("verified", "verified"),
)
LIMIT = "limit: direct read; from the page cache"


@dataclass(frozen=True)
class Loader:
    """One way of loading: the file or folder it reads, what it does, and whether every byte is checked."""

    path: str
    load: Callable[[bool], None]
    verified: bool = False


def main(options: Options) -> None:
    """Measure both sizes."""
    plan: dict[Size, int] = {SMALL: 2 * options.rounds, LARGE: options.rounds}
    if options.quick:
        plan = {SMALL: options.rounds}
    groups = {}
    for size, rounds in plan.items():
        with measure.workplace(options.folder) as folder:
            groups[size.label] = table(size, rounds, folder)
    report.write(options, "load", groups, rounds={size.label: rounds for size, rounds in plan.items()})
    plots.load(options, groups)


def table(size: Size, rounds: int, folder: str) -> dict[str, object]:
    """Measure one size."""
    training = Training(size)
    target = Training(size)
    loaders = prepare(training, target, folder)
    for name, loader in loaders.items():
        loader.load(False)  # noqa: FBT003 - warm, and not timed
        if name != LIMIT:
            check(training, target, name)
            target = reset(target)
    nbytes = training.nbytes
    del training
    cold: dict[str, list[float]] = {name: [] for name in loaders}
    warm: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds):
        for name, loader in measure.turn(list(loaders.items()), number):
            drop(loader.path)
            cold[name].append(timed(loader, cold=True))
            touch(loader.path)
            warm[name].append(timed(loader, cold=False))
    rows: Rows = {
        name: {
            "cold": measure.summary(cold[name]),
            "cold_of_limit": measure.ratios(cold[name], cold[LIMIT]),
            "warm": measure.summary(warm[name]),
            "warm_of_limit": measure.ratios(warm[name], warm[LIMIT]),
            "verified": "yes" if loader.verified else "no",
        }
        for name, loader in loaders.items()
    }
    report.show(f"load, {nbytes / 1e6:.0f} MB, {rounds} rounds", rows, COLUMNS)
    return {"bytes": nbytes, "rows": rows}


def prepare(training: Training, target: Training, folder: str) -> dict[str, Loader]:
    """Write a file of each kind, and return the ways of loading them into ``target``."""

    def saved(name: str, variant: Variant) -> str:
        place = os.path.join(folder, name)
        os.makedirs(place)
        saver = variant.start(training, place)
        saver.save()
        saver.wait()
        saver.close()
        return os.path.join(place, os.listdir(place)[0])

    torch_file, safe_file = saved("torch", peers.TORCH_SAVE), saved("safetensors", peers.SAFETENSORS)
    dcp_folder = saved("dcp", peers_dcp.DCP_SAVE)
    own_folder = os.path.join(folder, "holdfast")
    own_file = ours.write_for_loading(training, own_folder)
    buffer = limits.Buffer(training.nbytes)
    return {
        LIMIT: Loader(torch_file, lambda cold: limits.read(torch_file, buffer, direct=cold)),
        "holdfast.load, assigned": Loader(own_file, lambda _: assign(target, ours.load(own_file)), verified=True),
        "holdfast resume": Loader(own_file, lambda _: ours.resume(target, own_folder), verified=True),
        "torch.load, assigned": Loader(torch_file, lambda _: assign(target, torch.load(torch_file))),
        "torch.load(mmap), copied": Loader(torch_file, lambda _: copy(target, flat(torch.load(torch_file, mmap=True)))),
        "safetensors mmap, copied": Loader(safe_file, lambda _: copy(target, load_file(safe_file).items())),
        "safetensors pread, assigned": Loader(
            safe_file, lambda _: assign(target, nested(target, load_file(safe_file, backend="pread")))
        ),
        "dcp.load": Loader(dcp_folder, lambda _: peers_dcp.dcp_load(target, dcp_folder)),
    }


def assign(target: Training, state: State) -> None:
    """Let model and optimizer take the tensors as they are."""
    target.model.load_state_dict(state["state_dict"], assign=True)
    target.optimizer.load_state_dict(state["optimizer_states"][0])


@torch.no_grad()
def copy(target: Training, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Copy into the tensors of model and optimizer."""
    own = dict(target.tensors())
    for name, tensor in tensors:
        own[name].copy_(tensor)


def flat(state: State) -> Iterable[tuple[str, torch.Tensor]]:
    """Name the tensors of a state as ``Training.tensors`` does."""
    for name, tensor in state["state_dict"].items():
        yield f"model.{name}", tensor
    for number, moments in state["optimizer_states"][0]["state"].items():
        for name, tensor in moments.items():
            yield f"optimizer.{number}.{name}", tensor


def nested(target: Training, tensors: Mapping[str, torch.Tensor]) -> State:
    """Return such tensors as a state."""
    optimizer = target.optimizer.state_dict()
    moments = {
        number: {name: tensors[f"optimizer.{number}.{name}"] for name in state}
        for number, state in optimizer["state"].items()
    }
    model = {name: tensors[f"model.{name}"] for name in target.model.state_dict()}
    return {"state_dict": model, "optimizer_states": [{**optimizer, "state": moments}]}


def timed(loader: Loader, *, cold: bool) -> float:
    """Time one load, into memory as new as it is in a process that has just started."""
    usage.give_back()
    start = time.perf_counter()
    loader.load(cold)
    return time.perf_counter() - start


def check(training: Training, target: Training, name: str) -> None:
    """See that it did load the values.

    Raises:
        RuntimeError: if not.

    """
    own = dict(target.tensors())
    if not all(torch.equal(tensor, own[key]) for key, tensor in training.tensors()):
        msg = f"{name} has not loaded what was saved"
        raise RuntimeError(msg)


@torch.no_grad()
def reset(target: Training) -> Training:
    """Forget what was loaded, for the next to show that it loads."""
    for _, tensor in target.tensors():
        tensor.zero_()
    return target


def files(path: str) -> list[str]:
    """Return a file, or the files of a folder."""
    return [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else [path]


def drop(path: str) -> None:
    """Throw a file, or a folder of them, out of the page cache."""
    gc.collect()
    for name in files(path):
        with open(name, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def touch(path: str) -> None:
    """Bring a file, or a folder of them, into the page cache."""
    for name in files(path):
        with open(name, "rb", buffering=0) as file:
            while file.read(limits.BLOCK):
                pass


if __name__ == "__main__":
    main(parse(__doc__))
