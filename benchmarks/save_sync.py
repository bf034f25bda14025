"""Synchronous saves: python -m benchmarks.save_sync [--quick].

Seconds until the bytes are durable (or, where it says so, only handed over), against the machine's limit;
CPU seconds for each GB; the highest memory beyond the state's own.
"""

from __future__ import annotations

from benchmarks import measure, ours, peers, peers_dcp, peers_lightning, plots, report
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows
from benchmarks.saver import Variant
from benchmarks.states import LARGE, SMALL, TINY, Size, Training

VARIANTS = (
    peers.LIMIT_DISK,
    ours.SYNC,
    peers.TORCH_SAVE,
    peers.SAFETENSORS,
    peers_lightning.LIGHTNING,
    peers_lightning.LIGHTNING_SYNC,
    peers_dcp.DCP_SAVE,
)
MEASURABLE = 1 << 24  # below, the threads' own memory is more than the state's
COLUMNS = (
    Column("seconds", "ms", 2, 1e3, quartiles=True),
    Column("of_limit", "of the limit", 2),
    Column("of_torch", "of torch.save's time", 2),
    Column("cpu_per_gb", "CPU s/GB", 2),
    Column("memory", "extra memory x", 2),
    Column("durable", "durable"),
)


def main(options: Options) -> None:
    """Measure all three sizes."""
    plan: dict[Size, int] = {TINY: 50, SMALL: 15, LARGE: options.rounds}
    if options.quick:
        plan = {TINY: 5, SMALL: options.rounds}
    groups = {}
    with measure.workplace(options.folder) as folder:
        for size, rounds in plan.items():
            groups[size.label] = table(size, rounds, folder)
    report.write(options, "save_sync", groups, rounds={size.label: rounds for size, rounds in plan.items()})
    plots.save_sync(options, groups)


def table(size: Size, rounds: int, folder: str) -> dict[str, object]:
    """Measure one size."""
    training = Training(size)
    nbytes = training.nbytes
    series = measure.interleave(VARIANTS, training, folder, rounds, keep_open=size is not LARGE)
    limit, torch_save = (series[variant.name].column("complete") for variant in (VARIANTS[0], peers.TORCH_SAVE))
    rows: Rows = {variant.name: row(series[variant.name], variant, nbytes, limit, torch_save) for variant in VARIANTS}
    report.show(f"synchronous save, {nbytes / 1e6:.0f} MB, {rounds} rounds", rows, COLUMNS)
    return {"bytes": nbytes, "rows": rows}


def row(
    series: measure.Series, variant: Variant, nbytes: int, limit: list[float], torch_save: list[float]
) -> dict[str, object]:
    """Make a row of one variant's saves."""
    seconds = series.column("complete")
    return {
        "seconds": measure.summary(seconds),
        "of_limit": measure.ratios(limit, seconds),
        "of_torch": measure.ratios(seconds, torch_save),
        "cpu_per_gb": measure.summary([cpu / nbytes * 1e9 for cpu in series.column("cpu")]),
        "memory": series.memory / nbytes if nbytes > MEASURABLE else None,
        "durable": variant.durable,
    }


if __name__ == "__main__":
    main(parse(__doc__))
