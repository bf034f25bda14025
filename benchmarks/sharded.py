"""Saves of a sharded state by several ranks: python -m benchmarks.sharded [--quick].

The same state (GPT under FSDP2, on the CPU, gloo) is saved by each way in turn, in the same processes. A stall
is how long the training thread of the slowest rank stands still; complete is when the slowest rank knows that
the save is complete. Ratios are made round by round.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from benchmarks import measure, report, usage
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.sharded_savers import LIMIT, WAYS, Sharded, Way
from benchmarks.states import LARGE, SMALL, TINY, Size

COLUMNS = (
    Column("stall", "stall ms", 1, 1e3, quartiles=True),
    Column("complete", "complete ms", 0, 1e3, quartiles=True),
    Column("rate", "GB/s", 2),
    Column("of_limit", "of the limit", 2),
    Column("memory", "extra memory x", 2),
    Column("durable", "durable"),
)


@dataclass
class Figures:
    """What the saves of one way have shown, on the slowest rank: seconds, and bytes beyond the state's own."""

    stall: list[float] = field(default_factory=list)
    complete: list[float] = field(default_factory=list)
    memory: float = 0.0


def main(options: Options) -> None:
    """Measure with 2 and 4 ranks."""
    groups: dict[str, Any] = {}
    sizes = (TINY,) if options.quick else (SMALL, LARGE)
    with measure.workplace(options.folder) as folder:
        for size in sizes:
            for ranks in (2,) if options.quick else (2, 4):
                groups[f"{size.label}, {ranks} ranks"] = table(size, ranks, options.rounds, folder)
                report.write(options, "sharded", groups, rounds=options.rounds)


def table(size: Size, ranks: int, rounds: int, folder: str, device: str = "cpu") -> dict[str, object]:
    """Measure one size, in processes of their own."""
    place = os.path.join(os.path.abspath(folder), f"{ranks}-ranks")
    os.makedirs(place)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    processes.spawn(measured, (size, ranks, rounds, place, device), nprocs=ranks)
    with open(os.path.join(place, "figures.json"), encoding="utf-8") as file:
        told = json.load(file)
    shutil.rmtree(place)
    limit = told["figures"][LIMIT]["complete"]
    rows: Rows = {name: row(name, told, limit) for name in WAYS}
    report.show(f"sharded save, {told['bytes'] / 1e6:.0f} MB, {ranks} ranks, {rounds} rounds", rows, COLUMNS)
    return {"bytes": told["bytes"], "ranks": ranks, "rows": rows}


def row(name: str, told: dict[str, Any], limit: list[float]) -> dict[str, object]:
    """Make a row of one way's saves."""
    figures, complete = told["figures"][name], told["figures"][name]["complete"]
    return {
        "stall": None if name == LIMIT else measure.summary(figures["stall"]),
        "complete": measure.summary(complete),
        "rate": measure.summary([told["bytes"] / seconds / 1e9 for seconds in complete]),
        "of_limit": measure.ratios(limit, complete),
        "memory": figures["memory"],
        "durable": WAYS[name][1],
    }


def measured(  # noqa: PLR0913, PLR0917 - spawn hands on by position
    rank: int, size: Size, ranks: int, rounds: int, place: str, device: str
) -> None:
    """Be one rank: make the state, and save it by every way in each round."""
    torch.set_num_threads(1)
    store = dist.FileStore(os.path.join(place, "store"), ranks)
    backend = "gloo" if device == "cpu" else f"cpu:gloo,{device}:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
    training = Sharded(size, device)
    nbytes = int(total(training.nbytes))
    figures = {name: Figures() for name in WAYS}
    opened = {name: begin(name, training, place, figures[name]) for name in WAYS}
    for number in range(rounds):
        for name in measure.turn(list(WAYS), number):
            stall, complete = take(opened[name])
            figures[name].stall.append(stall)
            figures[name].complete.append(complete)
    for way in opened.values():
        way.close()
    if rank == 0:
        with open(os.path.join(place, "figures.json"), "w", encoding="utf-8") as file:
            json.dump({"bytes": nbytes, "figures": {name: vars(item) for name, item in figures.items()}}, file)
    dist.barrier()
    dist.destroy_process_group()


def begin(name: str, training: Sharded, place: str, figures: Figures) -> Way:
    """Open a way, and save twice, so that its memory is that of every later save."""
    folder = os.path.join(place, f"way{list(WAYS).index(name)}")
    os.makedirs(folder, exist_ok=True)
    usage.give_back()
    usage.reset_peak()
    before = usage.resident()
    way = WAYS[name][0](training, folder)
    for _ in range(2):
        take(way)
        figures.memory = max(figures.memory, slowest((usage.peak() - before) / max(training.nbytes, 1)))
    return way


def take(way: Way) -> tuple[float, float]:
    """Save once, all ranks at the same time; return the slowest rank's stall, and when it knew of the end."""
    dist.barrier()
    start = time.perf_counter()
    way.save()
    stall = time.perf_counter() - start
    way.wait()
    complete = time.perf_counter() - start
    dist.barrier()
    if dist.get_rank() == 0:
        for name in os.listdir(way.folder):
            shutil.rmtree(os.path.join(way.folder, name), ignore_errors=True)
        measure.settle()
    return slowest(stall), slowest(complete)


def slowest(value: float) -> float:
    """Return the highest of all ranks' figures."""
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return float(tensor)


def total(value: float) -> float:
    """Return the sum of all ranks' figures."""
    tensor = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(tensor)
    return float(tensor)


if __name__ == "__main__":
    main(parse(__doc__))
