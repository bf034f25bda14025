"""Synchronous saves and loads against the peers, as ratios, in one interleaved run: ``make bench``.

Each round does every variant once, in turn; the table gives medians over the rounds. The limit is the
same bytes written from memory with one ``write`` per 16 MiB and an fsync.

    python benchmarks/save.py [--megabytes 256] [--rounds 5] [--out benchmarks/results/save.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

import holdfast
from holdfast.lightning import CheckpointIO

Action = Callable[[str], object]


def make_state(megabytes: int) -> dict[str, object]:
    """A Lightning-like checkpoint: weights and two moments, in tensors of 4 MiB."""
    count = max(1, megabytes // 12)
    weights = {f"layer.{i}.weight": torch.randn(1024, 1024) for i in range(count)}
    moments = {i: {"exp_avg": torch.randn(1024, 1024), "exp_avg_sq": torch.rand(1024, 1024)} for i in range(count)}
    return {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": weights,
        "optimizer_states": [{"state": moments, "param_groups": []}],
    }


def sync(path: str) -> None:
    """Fsync a file and its directory."""
    for name, flags in ((path, os.O_RDONLY), (os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)):
        descriptor = os.open(name, flags)
        os.fsync(descriptor)
        os.close(descriptor)


def savers(state: dict[str, object], image: bytes) -> dict[str, Action]:
    """The ways of saving, by name."""

    def limit(path: str) -> None:
        view = memoryview(image)
        with open(path, "wb", buffering=0) as file:
            file.writelines(view[at : at + (1 << 24)] for at in range(0, len(view), 1 << 24))
        sync(path)

    def torch_save(path: str) -> None:
        torch.save(state, path)
        sync(path)

    def lightning(path: str) -> None:
        TorchCheckpointIO().save_checkpoint(state, path)
        sync(path)

    return {
        "limit: write + fsync": limit,
        "holdfast": lambda path: CheckpointIO().save_checkpoint(state, path),
        "torch.save + fsync": torch_save,
        "Lightning + fsync": lightning,
        "Lightning (not durable)": lambda path: TorchCheckpointIO().save_checkpoint(state, path),
    }


LOADERS: dict[str, Action] = {
    "torch.load": lambda path: torch.load(path, weights_only=True),
    "holdfast.load, verified": holdfast.load,
    "holdfast.load, verify=False": lambda path: holdfast.load(path, verify=False),
}


def measure(actions: dict[str, Action], path_of: Callable[[str], str], rounds: int) -> dict[str, list[float]]:
    """Time each action once per round, in turn, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for round_number in range(rounds + 1):
        for name, action in actions.items():
            start = time.perf_counter()
            action(path_of(name))
            if round_number:
                times[name].append(time.perf_counter() - start)
    return times


def report(title: str, times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Print medians, and ratios to the first action's, round by round."""
    first = next(iter(times.values()))
    print(f"\n{title:32} {'median s':>10} {'times the first':>16}")
    rows = {}
    for name, values in times.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        rows[name] = {"median_s": round(statistics.median(values), 4), "ratio": round(ratio, 3)}
        print(f"{name:32} {rows[name]['median_s']:10.3f} {ratio:16.2f}")
    return rows


def main() -> None:
    """Run both tables, and write them down if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    state = make_state(arguments.megabytes)
    folder = tempfile.mkdtemp(prefix="holdfast-bench-", dir=os.getcwd())
    try:
        sample = os.path.join(folder, "sample.ckpt")
        CheckpointIO().save_checkpoint(state, sample)
        image = Path(sample).read_bytes()
        print(
            f"{len(image) / 1e6:.0f} MB, {arguments.rounds} rounds, torch {torch.__version__}, {os.cpu_count()} cores"
        )
        saved = measure(savers(state, image), lambda name: os.path.join(folder, f"{name[:6]}.ckpt"), arguments.rounds)
        loaded = measure(LOADERS, lambda _: sample, arguments.rounds)
        result = {
            "bytes": len(image),
            "rounds": arguments.rounds,
            "torch": torch.__version__,
            "holdfast": holdfast.__version__,
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "save": report("save", saved),
            "load, warm page cache": report("load, warm page cache", loaded),
        }
    finally:
        shutil.rmtree(folder)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
