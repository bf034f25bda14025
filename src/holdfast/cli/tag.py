"""``holdfast tag``: names that people give to a checkpoint."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.noting import say_what_is_said
from holdfast.front.catalog import open_checkpoint

DESCRIPTION = """Give a checkpoint tags, or take them away. A tag is a name for people, which `holdfast ls` shows.

It keeps nothing from being removed: `holdfast pin` does."""
EXAMPLES = """
holdfast tag runs/digits/epoch=3.ckpt paper figure-2
holdfast tag --remove runs/digits/epoch=3.ckpt figure-2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    parser.add_argument("tags", metavar="TAG", nargs="+", help="printable, without commas")
    parser.add_argument("--remove", action="store_true", help="take these away instead")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Give the tags, or take them away."""
    checkpoint = open_checkpoint(options.path)
    if options.remove:
        checkpoint.untag(*options.tags)
    else:
        checkpoint.tag(*options.tags)
    return say_what_is_said([checkpoint], as_json=options.as_json)
