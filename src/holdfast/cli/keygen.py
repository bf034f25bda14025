"""``holdfast keygen``: a pair of keys to sign with."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, say
from holdfast.errors import EXIT_OK

DESCRIPTION = """Make a pair of ed25519 keys: PATH, to sign with, which is secret; and PATH.pub, to verify with.

Never writes over a file. Needs the extra [sign]."""
EXAMPLES = "holdfast keygen ~/.keys/lab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "PATH", "a local path at which there is nothing yet")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Make a pair of keys."""
    from holdfast.front.opening import keygen as make_keys  # noqa: PLC0415 - imports torch

    path = options.path
    name = make_keys(path)
    if options.as_json:
        print_json({"key": name, "private": path, "public": f"{path}.pub"})
    else:
        say(f"the key {name}: sign with {path}, which is secret; verify with {path}.pub")
    return EXIT_OK
