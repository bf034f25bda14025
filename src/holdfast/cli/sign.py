"""``holdfast sign``: put a name to a checkpoint, or to all of a directory."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_path
from holdfast.cli.look import files_at
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, DamagedCheckpointError, printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR|FILE")
    parser.add_argument("--key", metavar="PRIVATE", required=True, help="a PEM or OpenSSH file without a password")


def run(options: argparse.Namespace) -> int:
    """Sign one checkpoint, or all of a directory."""
    from holdfast.front.opening import sign as sign_file  # noqa: PLC0415 - imports torch

    damaged = False
    for item in files_at(options.path):
        try:
            print(f"signed   {printable(item)}: {printable(sign_file(item, options.key))}")
        except DamagedCheckpointError as error:  # noqa: PERF203 - one bad file must not keep the others from it
            print(f"DAMAGED  {printable(f'{item}: {error.record}: {error.problem}')}: not signed")
            damaged = True
    return EXIT_PROBLEM if damaged else EXIT_OK
