"""``holdfast note``: a text beside a checkpoint."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.noting import say_what_is_said
from holdfast.front.catalog import open_checkpoint

DESCRIPTION = "Put a text beside a checkpoint. Those that are there already stay; `holdfast show` prints them all."
EXAMPLES = 'holdfast note runs/digits/epoch=3.ckpt "sent to the reviewers"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    parser.add_argument("text", metavar="TEXT", help="what to say of it")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Add the text."""
    checkpoint = open_checkpoint(options.path).note(options.text)
    return say_what_is_said([checkpoint], as_json=options.as_json)
