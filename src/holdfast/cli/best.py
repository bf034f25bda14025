"""``holdfast best``: the path of the best checkpoint, for scripts."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_path
from holdfast.errors import EXIT_OK, CheckpointNotFoundError, MissingMetricError
from holdfast.front.catalog import catalog

DESCRIPTION = """Print the path of the best checkpoint below a directory, and nothing else, for scripts.

By the metric that its runs monitored, or by any other that is in the manifests or was attached later. NaN is
never the best."""
EXAMPLES = """
python eval.py "$(holdfast best runs/digits)"
holdfast best --metric val_acc --mode max runs
"""
EXIT_CODES = "exit codes: 0 printed, 2 wrong usage, 3 there is none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    add_json(parser)
    parser.add_argument("--metric", metavar="NAME", help="the metric to go by; the monitored one by default")
    parser.add_argument("--mode", choices=("min", "max"), help="whether the lowest or the highest is best")


def run(options: argparse.Namespace) -> int:
    """Print the path."""
    try:
        found = catalog(options.path).best(options.metric, options.mode)
    except MissingMetricError as error:
        raise CheckpointNotFoundError(str(error)) from error
    if found is None:
        msg = f"no checkpoint in {options.path} has a real score: `holdfast ls {options.path}` shows what they have"
        raise CheckpointNotFoundError(msg)
    print_path(found.path, as_json=options.as_json)
    return EXIT_OK
