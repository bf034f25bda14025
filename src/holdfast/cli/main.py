"""The arguments of the command, and what they lead to.

Exit codes: 0 all is well; 1 a problem was found (a damaged checkpoint); 2 wrong usage; 3 nothing there.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from holdfast._version import __version__
from holdfast.cli import commands
from holdfast.errors import (
    EXIT_NOT_FOUND,
    EXIT_PROBLEM,
    EXIT_USAGE,
    CheckpointNotFoundError,
    ConfigurationError,
    HoldfastError,
    printable,
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="holdfast", description="Look at checkpoints and check them.")
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, run, target, text in (
        ("ls", commands.ls, "DIR", "list the checkpoints of a directory, and why each one is kept"),
        ("show", commands.show, "FILE", "print the manifest of one checkpoint"),
        ("verify", commands.verify, "DIR|FILE", "check every byte of a checkpoint, or of all in a directory"),
    ):
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        verb.add_argument("path", metavar=target, help="a local path or an fsspec URL")
        verb.add_argument("--json", action="store_true", help="print JSON, for programs")
        verb.set_defaults(run=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in letters that the terminal lacks is shown escaped
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments.path, as_json=arguments.json)
        sys.stdout.flush()
    except CheckpointNotFoundError as error:
        return _fail(error, EXIT_NOT_FOUND)
    except ConfigurationError as error:
        return _fail(error, EXIT_USAGE)
    except HoldfastError as error:
        return _fail(error, EXIT_PROBLEM)
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PROBLEM
    except OSError as error:
        return _fail(error, EXIT_PROBLEM)
    return code


def _fail(error: Exception, code: int) -> int:
    print(f"holdfast: {printable(str(error))}", file=sys.stderr)
    return code
