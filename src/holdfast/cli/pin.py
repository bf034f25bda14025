"""``holdfast pin``: keep checkpoints whatever the rules say."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_paths
from holdfast.cli.noting import say_of_each
from holdfast.front.checkpoint import Checkpoint

DESCRIPTION = (
    "Pin checkpoints: no rule removes them, neither a run's nor those of `holdfast prune`, until they are unpinned."
)
EXAMPLES = "holdfast pin runs/digits/epoch=3.ckpt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_paths(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Pin each."""
    return say_of_each(options, Checkpoint.pin)
