"""``holdfast unpin``: let the rules decide about checkpoints again."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_paths
from holdfast.cli.noting import say_of_each
from holdfast.front.checkpoint import Checkpoint

DESCRIPTION = "Take the pins of checkpoints away: the rules decide about them again."
EXAMPLES = "holdfast unpin runs/digits/epoch=3.ckpt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_paths(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Unpin each."""
    return say_of_each(options, Checkpoint.unpin)
