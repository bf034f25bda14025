"""``holdfast unpin``: let the rules decide about checkpoints again."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_paths
from holdfast.cli.noting import say_what_is_said
from holdfast.front.catalog import open_checkpoint

DESCRIPTION = "Take the pins of checkpoints away: the rules decide about them again."
EXAMPLES = "holdfast unpin runs/digits/epoch=3.ckpt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_paths(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Unpin each."""
    checkpoints = [open_checkpoint(path) for path in options.paths]
    for checkpoint in checkpoints:
        checkpoint.unpin()
    return say_what_is_said(options.paths, as_json=options.as_json)
