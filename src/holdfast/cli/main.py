"""The arguments of the command, and what they lead to.

Exit codes: 0 all is well; 1 a problem was found (a checkpoint that is damaged, or not signed as asked);
2 wrong usage; 3 nothing there.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from holdfast._version import __version__
from holdfast.errors import (
    EXIT_NOT_FOUND,
    EXIT_PROBLEM,
    EXIT_USAGE,
    CheckpointNotFoundError,
    ConfigurationError,
    HoldfastError,
    printable,
)

VERBS = {
    "ls": "list the checkpoints of a directory, and why each one is kept",
    "show": "print the manifest of one checkpoint",
    "verify": "check every byte of a checkpoint, or of all in a directory",
    "plan": "simulate rules: how many files and bytes they would keep of a run",
    "sign": "sign a checkpoint, or all in a directory, with an ed25519 key",
    "keygen": "make a pair of ed25519 keys: PATH, to sign with, and PATH.pub, to verify with",
}  # each in its own module of this package, which is imported only if it is asked for


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command; with the name of a verb, one that knows the arguments of that alone."""
    parser = argparse.ArgumentParser(prog="holdfast", description="Look at checkpoints and check them.")
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, text in VERBS.items():
        verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if only in (None, name):
            module = import_module(f"holdfast.cli.{name}")
            module.add_arguments(verb)
            verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in letters that the terminal lacks is shown escaped
    given = sys.argv[1:] if argv is None else argv
    verb = given[0] if given and given[0] in VERBS else None
    options = build_parser(verb).parse_args(given)
    try:
        code: int = options.run(options)
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
