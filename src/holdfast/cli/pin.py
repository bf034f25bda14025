"""``holdfast pin``: keep checkpoints whatever the rules say."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_paths
from holdfast.cli.noting import say_what_is_said
from holdfast.front.catalog import open_checkpoint

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
    checkpoints = [open_checkpoint(path) for path in options.paths]
    for checkpoint in checkpoints:
        checkpoint.pin()
    return say_what_is_said(options.paths, as_json=options.as_json)
