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
from typing import Any

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
        verb.add_argument("--json", dest="as_json", action="store_true", help="print JSON, for programs")
        verb.set_defaults(run=run)
        if name == "verify":
            verb.add_argument("--key", metavar="PUBLIC", help="also check that this key's owner has signed it")
    _add_signing(verbs)
    return parser


def _add_signing(verbs: Any) -> None:
    text = "sign a checkpoint, or all in a directory, with an ed25519 key"
    verb = verbs.add_parser("sign", help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("path", metavar="DIR|FILE", help="a local path or an fsspec URL")
    verb.add_argument("--key", metavar="PRIVATE", required=True, help="a PEM or OpenSSH file without a password")
    verb.set_defaults(run=commands.sign)
    text = "make a pair of ed25519 keys: PATH, to sign with, and PATH.pub, to verify with"
    verb = verbs.add_parser("keygen", help=text, description=text[0].upper() + text[1:] + ".")
    verb.add_argument("path", metavar="PATH", help="a local path at which there is nothing yet")
    verb.set_defaults(run=commands.keygen)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in letters that the terminal lacks is shown escaped
    arguments = vars(build_parser().parse_args(argv))
    run, path = arguments.pop("run"), arguments.pop("path")
    del arguments["verb"]
    try:
        code: int = run(path, **arguments)
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
