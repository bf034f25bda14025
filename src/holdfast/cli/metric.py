"""``holdfast metric``: scores that were measured after the save."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.noting import say_what_is_said
from holdfast.front.catalog import open_checkpoint

DESCRIPTION = """Attach metrics to a checkpoint that is committed: scores of an evaluation that came after the save.

They count like those of its manifest: the rankings of `ls`, `best`, `prune` and of the run follow. Of a
name that is there already the new value counts. The file itself is not changed."""
EXAMPLES = "holdfast metric runs/digits/epoch=3.ckpt test_acc=0.93 test_loss=0.21"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    parser.add_argument("metrics", metavar="NAME=VALUE", nargs="+", type=_metric, help="a name and a number")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Attach the metrics."""
    checkpoint = open_checkpoint(options.path).add_metrics(dict(options.metrics))
    return say_what_is_said([checkpoint], as_json=options.as_json)


def _metric(text: str) -> tuple[str, float]:
    """Read one; argparse says what is wrong with any other."""
    name, _, value = text.rpartition("=")
    if not name:
        msg = f"{text!r} is not of the form NAME=VALUE"
        raise argparse.ArgumentTypeError(msg)
    try:
        return name, float(value)
    except ValueError:
        msg = f"the value of {name!r} is no number: {value!r}"
        raise argparse.ArgumentTypeError(msg) from None
