"""``holdfast sign``: put a name to a checkpoint, or to all of a directory."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, DamagedCheckpointError

DESCRIPTION = """Check a checkpoint, or all below a directory, and sign each with an ed25519 key: PATH.sig beside it.

A damaged one is not signed. Needs the extra [sign]."""
EXAMPLES = "holdfast sign runs/digits --key ~/.keys/lab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR|FILE")
    add_json(parser)
    parser.add_argument("--key", metavar="PRIVATE", required=True, help="a PEM or OpenSSH file without a password")


def run(options: argparse.Namespace) -> int:
    """Sign one checkpoint, or all of a directory."""
    from holdfast.front.opening import sign as sign_file  # noqa: PLC0415 - imports torch
    from holdfast.front.verifying import to_verify  # noqa: PLC0415 - the same

    results: list[dict[str, Any]] = []
    for item in [found.path for found in to_verify(options.path)]:
        result = {"path": item, "signature": None, "problem": ""}
        try:
            result["signature"] = sign_file(item, options.key)
        except DamagedCheckpointError as error:  # one bad file must not keep the others from it
            result["problem"] = f"{error.record}: {error.problem}"
        results.append(result)
        if options.as_json:
            continue
        if result["problem"]:
            say(f"DAMAGED  {item}: {result['problem']}: not signed", "red")
        else:
            say(f"signed   {item}: {result['signature']}")
    if options.as_json:
        print_json(results)
    return EXIT_PROBLEM if any(result["problem"] for result in results) else EXIT_OK
