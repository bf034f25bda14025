"""All tables, each in a process of its own, then the goals: python -m benchmarks [--quick]."""

from __future__ import annotations

import subprocess
import sys

from benchmarks import goals
from benchmarks.options import parse

TABLES = ("save_sync", "save_async", "throughput", "load", "overhead", "sharded", "beats", "remote", "gpu")


def main() -> None:
    """Run each script with the words that were given, and end with the goals."""
    options = parse(__doc__)
    for table in TABLES:
        subprocess.run([sys.executable, "-m", f"benchmarks.{table}", *sys.argv[1:]], check=True)  # noqa: S603 - ours
    goals.show(options)


main()
