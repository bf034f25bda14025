"""``holdfast keygen``: a pair of keys to sign with."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_path
from holdfast.errors import EXIT_OK, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "PATH", "a local path at which there is nothing yet")


def run(options: argparse.Namespace) -> int:
    """Make a pair of keys."""
    from holdfast.front.opening import keygen as make_keys  # noqa: PLC0415 - imports torch

    path = options.path
    print(printable(f"the key {make_keys(path)}: sign with {path}, which is secret; verify with {path}.pub"))
    return EXIT_OK
