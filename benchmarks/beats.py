"""What a step costs on which nothing is saved, with several ranks: python -m benchmarks.beats [--quick].

Two and four processes on this machine (gloo), in the middle of a real fit under Lightning's ``ddp``. Each step is five
milliseconds of sleep and the training's own collective; timed is what the checkpointer then takes. Lightning's class
broadcasts an object after each batch once it has a ``train_time_interval``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from benchmarks import measure, report
from benchmarks.beats_rank import STEP
from benchmarks.options import Options, parse
from benchmarks.report import Column, Rows

COLUMNS = (Column("seconds", "us a step", 2, 1e6, quartiles=True), Column("share", "% of a step of 5 ms", 3, 100))
SIZES = (2, 4)


def main(options: Options) -> None:
    """Measure with each number of ranks."""
    groups: dict[str, object] = {}
    with measure.workplace(options.folder) as folder:
        for size in SIZES:
            times = run(size, folder, 40 if options.quick else 400, options.rounds)
            rows: Rows = {}
            for name, values in times.items():
                summary = measure.summary(values)
                rows[name] = {"seconds": summary, "share": summary["median"] / STEP}
            title = f"a step of {size} ranks on which nothing is saved"
            report.show(title, rows, COLUMNS)
            groups[f"{size} ranks"] = {"rows": rows}
    report.write(options, "beats", groups, rounds=options.rounds)


def run(size: int, folder: str, steps: int, rounds: int) -> dict[str, list[float]]:
    """Have ranks measure; return rank 0's figures."""
    out = os.path.join(folder, f"{size}.json")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command += ["-m", "benchmarks.beats_rank", folder, out, str(steps), str(rounds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - ours
    with open(out) as file:
        found: Any = json.load(file)
    return dict(found)


if __name__ == "__main__":
    main(parse(__doc__))
