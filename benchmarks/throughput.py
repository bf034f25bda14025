"""Training throughput lost to saving: python -m benchmarks.throughput [--quick] [--rounds N].

A small model that keeps all cores busy, with a save every 5 steps and with a save after every step, each
beside the same steps without saves. What holdfast loses is less than what one run differs from the next:
for quartiles that say something, ask for 24 rounds or more.
"""

from __future__ import annotations

from benchmarks import measure, ours, pairs, peers, peers_dcp, peers_lightning, plots, report
from benchmarks.options import Options, parse
from benchmarks.states import SMALL, TINY, Training, calibrate

STEP_SECONDS = 0.17
VARIANTS = (
    peers.LIMIT_BEHIND,
    *(variant for variant in ours.ASYNCHRONOUS if variant is not ours.RECYCLED),
    peers.TORCH_SAVE,
    peers.TORCH_SAVE_ONLY,
    peers.TORCH_SAVE_THREAD,
    peers_lightning.LIGHTNING,
    peers_lightning.LIGHTNING_ASYNC,
    peers_dcp.DCP_ASYNC,
    peers_dcp.DCP_REUSED,
    peers_dcp.DCP_OVERLAPPED,
    peers_dcp.DCP_PROCESS,
)


def main(options: Options) -> None:
    """Measure with a save every 5 steps, and after every step."""
    size, seconds = (TINY, 0.01) if options.quick else (SMALL, STEP_SECONDS)
    groups = {}
    with measure.workplace(options.folder) as folder:
        training = Training(size)
        step = calibrate(training, training.step, seconds)
        for every in (5, 1):
            groups[f"every {every}"] = pairs.table(
                training, folder, VARIANTS, every=every, rounds=options.rounds, step=step
            )
    report.write(options, "throughput", groups, step_seconds=step, rounds=options.rounds)
    plots.throughput(options, groups)


if __name__ == "__main__":
    main(parse(__doc__))
