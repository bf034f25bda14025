"""Saves of a training on a GPU: python -m benchmarks.gpu [--quick]. Without CUDA it says so, and measures nothing.

The limit of a stall is a copy of the same bytes into pinned memory. Lightning is not asked: its saves are
``torch.save`` of the tensors where they are.
"""

from __future__ import annotations

import time

import torch

from benchmarks import measure, ours, pairs, peers, peers_dcp, report, sharded
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.saver import Saver, Variant
from benchmarks.states import LARGE, SMALL, Size, Training, calibrate

STEP_SECONDS = 0.17
COLUMNS = (
    Column("stall", "stall ms", 1, 1e3, quartiles=True),
    Column("of_pinned", "x pinned copy", 2),
    Column("first_stall", "first, cold, ms", 0, 1e3),
    Column("complete", "complete ms", 0, 1e3, quartiles=True),
    Column("of_limit", "of the disk limit", 2),
    Column("device", "extra device memory x", 2),
    Column("durable", "durable"),
)


class LimitPinned(Saver):
    """The same bytes, in one piece, from the device into pinned memory."""

    def __init__(self, training: Training, folder: str, *, retain: bool = False) -> None:
        super().__init__(training, folder, retain=retain)
        self._source = torch.empty(training.nbytes, dtype=torch.uint8, device=training.device)
        self._target = torch.empty(training.nbytes, dtype=torch.uint8, pin_memory=True)

    def save(self) -> None:
        """Copy."""
        self._target.copy_(self._source, non_blocking=True)
        self.training.synchronize()


LIMIT = Variant("limit: pinned copy", LimitPinned, durable="no")
VARIANTS = (
    LIMIT,
    peers.LIMIT_DISK,
    *(variant for variant in ours.ASYNCHRONOUS if not variant.own_training),
    peers.TORCH_SAVE,
    peers.TORCH_SAVE_THREAD,
    peers_dcp.DCP_ASYNC,
    peers_dcp.DCP_REUSED,
    peers_dcp.DCP_OVERLAPPED,
)
SAVERS = tuple(variant for variant in VARIANTS if not variant.name.startswith("limit"))


def main(options: Options) -> None:
    """Measure the stall, and the throughput that is lost."""
    if not torch.cuda.is_available():
        print("\ngpu: there is no CUDA device here: not measured")
        return
    size, rounds = (SMALL, 2) if options.quick else (LARGE, options.rounds)
    with measure.workplace(options.folder) as folder:
        training = Training(size, "cuda")
        step = calibrate(training, training.step, 0.02 if options.quick else STEP_SECONDS)
        groups: dict[str, object] = {size.label: table(training, folder, rounds)}
        groups["every 5"] = pairs.table(training, folder, SAVERS, every=5, rounds=rounds, step=step)
        del training
        torch.cuda.empty_cache()
        groups["FSDP2 on one GPU"] = sharded.table(size, 1, rounds, folder, "cuda")
    report.write(options, "gpu", groups, rounds=rounds, step_seconds=step)


def table(training: Training, folder: str, rounds: int) -> dict[str, object]:
    """Measure the stalls."""
    size: Size = training.size
    series = measure.interleave(VARIANTS, training, folder, rounds, keep_open=False, busy=training.forward_backward)
    pinned = series[LIMIT.name].column("stall")
    disk = series[peers.LIMIT_DISK.name].column("complete")
    device = {variant.name: device_memory(variant, training, folder) for variant in SAVERS}
    rows: Rows = {}
    for variant in VARIANTS:
        stall, complete = (series[variant.name].column(name) for name in ("stall", "complete"))
        rows[variant.name] = {
            "stall": measure.summary(stall),
            "of_pinned": measure.ratios(stall, pinned),
            "first_stall": measure.summary(series[variant.name].first),
            "complete": measure.summary(complete),
            "of_limit": measure.ratios(disk, complete),
            "device": device.get(variant.name),
            "durable": variant.durable,
        }
    report.show(f"on a GPU, {size.label}, {rounds} rounds", rows, COLUMNS)
    return {"bytes": training.nbytes, "rows": rows}


def device_memory(variant: Variant, training: Training, folder: str) -> float:
    """Return the device's memory at its highest during a save, beyond what training holds, in states."""
    used = measure.Open(variant, training, folder, measure.Series())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    used.take()
    time.sleep(0.01)  # a thread's last allocation
    extra = torch.cuda.max_memory_allocated() - before
    used.close()
    return extra / training.nbytes


if __name__ == "__main__":
    main(parse(__doc__))
