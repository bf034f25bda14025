"""``holdfast last``: the path of the newest checkpoint, for scripts."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_path
from holdfast.errors import EXIT_OK, CheckpointNotFoundError
from holdfast.front.catalog import catalog

DESCRIPTION = """Print the path of the newest checkpoint below a directory, and nothing else, for scripts.

By the order of the saves, not by the files' times. Its bytes are not checked: `holdfast verify` does that, and
so does every load."""
EXAMPLES = 'python resume.py "$(holdfast last runs/digits)"'
EXIT_CODES = "exit codes: 0 printed, 2 wrong usage, 3 there is none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the path."""
    found = catalog(options.path).last()
    if found is None:
        msg = f"there is no checkpoint with a manifest in {options.path}"
        raise CheckpointNotFoundError(msg)
    print_path(found.path, as_json=options.as_json)
    return EXIT_OK
