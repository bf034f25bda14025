"""The words that every script understands."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parent


@dataclass(frozen=True)
class Options:
    """How much to measure, and where.

    Attributes:
        quick: small and few: to see that it runs, not to be believed.
        folder: where the checkpoints go: the filesystem that is measured.
        rounds: samples of each variant, where a table has no reason for its own number.
        results: where the results and plots are written.

    """

    quick: bool
    folder: str
    rounds: int
    results: Path


def parse(description: str | None, arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs")
    parser.add_argument("--folder", default="runs", help="where checkpoints are written (default: runs)")
    parser.add_argument("--rounds", type=int, help="samples of each variant (default: 5; quick: 2)")
    parser.add_argument("--out", type=Path, help="for results and plots (default: benchmarks; quick: the folder)")
    words = parser.parse_args(arguments)
    out = words.out or (Path(words.folder) / "quick" if words.quick else HOME)
    return Options(words.quick, words.folder, words.rounds or (2 if words.quick else 5), out)
