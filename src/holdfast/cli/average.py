"""``holdfast average``: the mean of several checkpoints' weights as a new checkpoint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from holdfast.cli.arguments import add_json
from holdfast.cli.output import print_json, print_table, progress
from holdfast.errors import EXIT_OK, printable
from holdfast.front.weighing import size_of

if TYPE_CHECKING:
    from holdfast.front.average import Averaged

EXAMPLES = """
holdfast average runs/digits/epoch=*.ckpt --out mean.ckpt
holdfast average runs/digits/epoch=*.ckpt --ema 0.9 --out ema.ckpt
"""

_FEW = 5  # names that are told of the tensors that were not averaged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("paths", metavar="FILE", nargs="+", help="the checkpoints: local paths or fsspec URLs")
    parser.add_argument("--out", required=True, metavar="PATH", help="the checkpoint to write: a new file")
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument(
        "--weights", metavar="W,W,...", type=_numbers, help="how much each one counts, in the order of the files"
    )
    weighing.add_argument(
        "--ema", metavar="DECAY", type=float, help="a moving average instead, from the oldest step to the newest"
    )
    parser.add_argument("--dtype", metavar="TYPE", help="of the averaged tensors, such as bfloat16")
    parser.add_argument("--key", metavar="KEY", help="where the model's state dict is, if not under a usual key")
    parser.add_argument("--force", action="store_true", help="replace PATH if it is there, when the new one is whole")
    add_json(parser)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


_numbers.__name__ = "list of numbers"  # what argparse calls it where it cannot read one


def run(options: argparse.Namespace) -> int:
    """Average checkpoints."""
    from holdfast.front.average import average  # noqa: PLC0415 - imports torch

    with progress(size_of(options.paths), "averaging") as advance:
        made = average(
            options.paths,
            options.out,
            weights=options.weights,
            ema=options.ema,
            dtype=options.dtype,
            key=options.key,
            overwrite=options.force,
            advance=advance,
        )
    if options.as_json:
        print_json(made.as_dict())
    else:
        _tell(made)
    return EXIT_OK


def _tell(made: Averaged) -> None:
    rows = [(f"{weight:.4g}", source) for weight, source in zip(made.weights, made.sources, strict=True)]
    print_table(("weight", "of, the newest last"), rows)
    print(f"tensors averaged: {len(made.averaged)}")
    if made.taken:
        more = f" and {len(made.taken) - _FEW} more" if len(made.taken) > _FEW else ""
        print(printable(f"taken from the newest: {', '.join(made.taken[:_FEW])}{more}"))
    print(printable(f"written: {made.path}"))
