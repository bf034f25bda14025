"""Asynchronous saves: python -m benchmarks.save_async [--quick].

How long training stands still, when the file is complete, what CPU and memory it takes. For the overlapped
variants a forward and backward of at least three times the copy runs after the save, and the stall is what
the save and the fence before the optimizer's step take; complete means complete beside that work.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import measure, ours, peers, peers_dcp, peers_lightning, plots, report, usage
from benchmarks.measure import Open, Series
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.saver import Variant
from benchmarks.states import LARGE, SMALL, Size, Training, calibrate

VARIANTS = (
    peers.LIMIT_MEMORY,
    peers.LIMIT_DISK,
    *(variant for variant in ours.ASYNCHRONOUS if not variant.own_training),
    peers_lightning.LIGHTNING,
    peers_lightning.LIGHTNING_ASYNC,
    peers.TORCH_SAVE_THREAD,
    peers_dcp.DCP_ASYNC,
    peers_dcp.DCP_REUSED,
    peers_dcp.DCP_OVERLAPPED,
    peers_dcp.DCP_PROCESS,
)
COLUMNS = (
    Column("stall", "stall ms", 1, 1e3, quartiles=True),
    Column("of_memcpy", "x memcpy", 2),
    Column("first_stall", "first, cold, ms", 0, 1e3),
    Column("complete", "complete ms", 0, 1e3, quartiles=True),
    Column("of_limit", "of the disk limit", 2),
    Column("cpu_per_gb", "CPU s/GB", 2),
    Column("memory", "extra memory x", 2),
    Column("process", "process MB", 0, 1e-6),
    Column("durable", "durable"),
)
GROWTH_COLUMNS = (
    Column("image", "extra memory x", 2),
    Column("growth", "more at the last, KiB", 0, 1 / 1024),
    Column("resident_growth", "resident more, KiB", 0, 1 / 1024),
)


def main(options: Options) -> None:
    """Measure both sizes, then what memory a hundred saves take."""
    plan: dict[Size, int] = {SMALL: 15, LARGE: options.rounds}
    if options.quick:
        plan = {SMALL: options.rounds}
    groups: dict[str, object] = {}
    with measure.workplace(options.folder) as folder:
        for size, rounds in plan.items():
            groups[size.label] = table(size, rounds, folder)
        groups["growth"] = growth(folder, 10 if options.quick else 100)
    report.write(options, "save_async", groups, rounds={size.label: rounds for size, rounds in plan.items()})
    plots.save_async(options, groups)


def table(size: Size, rounds: int, folder: str) -> dict[str, object]:
    """Measure one size."""
    training = Training(size)
    nbytes = training.nbytes
    busy, seconds = busy_for(training, folder)
    series = measure.interleave(VARIANTS, training, folder, rounds, keep_open=False, busy=busy)
    rows: Rows = {variant.name: row(variant, series, nbytes) for variant in VARIANTS}
    title = f"asynchronous save, {nbytes / 1e6:.0f} MB, {rounds} rounds; forward and backward {seconds * 1e3:.0f} ms"
    report.show(title, rows, COLUMNS)
    return {"bytes": nbytes, "forward_backward_seconds": seconds, "rows": rows}


def row(variant: Variant, table_of: dict[str, Series], nbytes: int) -> dict[str, object]:
    """Make a row of one variant's saves."""
    series = table_of[variant.name]
    stall, complete, cpu = (series.column(name) for name in ("stall", "complete", "cpu"))
    memcpy = table_of[peers.LIMIT_MEMORY.name].column("stall")
    disk = table_of[peers.LIMIT_DISK.name].column("complete")
    on_disk = variant is not peers.LIMIT_MEMORY
    return {
        "stall": measure.summary(stall) if variant is not peers.LIMIT_DISK else None,
        "of_memcpy": measure.ratios(stall, memcpy) if variant is not peers.LIMIT_DISK else None,
        "first_stall": measure.summary(series.first) if variant is not peers.LIMIT_DISK else None,
        "complete": measure.summary(complete) if on_disk else None,
        "of_limit": measure.ratios(disk, complete) if on_disk else None,
        "cpu_per_gb": measure.summary([value / nbytes * 1e9 for value in cpu]) if cpu else None,
        "memory": series.memory / nbytes,
        "process": series.process or None if variant is peers_dcp.DCP_PROCESS else None,
        "durable": variant.durable,
    }


def busy_for(training: Training, folder: str) -> tuple[Callable[[], None], float]:
    """Return a forward and backward that takes at least three times a copy of the state, and how long it takes."""
    limit = Open(peers.LIMIT_MEMORY, training, folder, Series())
    copy = max(limit.take().stall for _ in range(3))
    limit.close()
    return training.forward_backward, calibrate(training, training.forward_backward, 3.5 * copy)


def growth(folder: str, late: int) -> dict[str, object]:
    """Compare the highest memory of the second save (recycled: the third) with that of all later ones."""
    training = Training(SMALL)
    rows: Rows = {}
    for variant in ours.ASYNCHRONOUS:
        if variant.own_training:
            continue
        series = Series()
        used = Open(variant, training, folder, series, retain=True)
        early, resident = usage.peak(), usage.resident()
        peaks = []
        for _ in range(late - variant.warmups):
            used.take()
            peaks.append(usage.peak())
        rows[variant.name] = {
            "image": series.memory / training.nbytes,
            "growth": max(peaks) - early,
            "resident_growth": usage.resident() - resident,
        }
        used.close()
    report.show(f"memory at save {late}, {training.nbytes / 1e6:.0f} MB", rows, GROWTH_COLUMNS)
    return {"saves": late, "bytes": training.nbytes, "rows": rows}


if __name__ == "__main__":
    main(parse(__doc__))
