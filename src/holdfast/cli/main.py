"""The arguments of the command, and what they lead to.

Exit codes: 0 all is well; 1 a problem was found (a checkpoint that is damaged, or not signed as asked);
2 wrong usage; 3 nothing there; 130 interrupted; 141 the reader of the output has gone.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from types import ModuleType

from holdfast._version import __version__
from holdfast.cli.helping import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, Formatter, Parser, nearest, verb_epilog
from holdfast.cli.output import print_json
from holdfast.cli.reaching import add_reaching, reach
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
    "ls": "list runs and their checkpoints, and why each one is kept",
    "show": "tell everything about one checkpoint: manifest, lineage, environment, tensors",
    "best": "print the path of the best checkpoint, for scripts",
    "last": "print the path of the newest checkpoint, for scripts",
    "prune": "remove what the rules do not keep, and say why",
    "tag": "give a checkpoint names, or take them away",
    "pin": "keep checkpoints whatever the rules say",
    "unpin": "let the rules decide about checkpoints again",
    "note": "put a text beside a checkpoint",
    "metric": "attach metrics to a checkpoint that were measured after its save",
    "verify": "check every byte of a checkpoint, or of all in a directory",
    "plan": "simulate rules: how many files and bytes they would keep of a run",
    "doctor": "say what is wrong in a directory, and what to do",
    "cp": "copy a checkpoint, or a directory of runs, and verify the copy",
    "sync": "bring the checkpoints of a directory to another one, and go on where it was cut off",
    "export": "write the weights of a checkpoint as safetensors, or as a torch file",
    "import": "make a checkpoint with a manifest of safetensors, or of a file that torch or Lightning wrote",
    "sign": "sign a checkpoint, or all in a directory, with an ed25519 key",
    "diff": "say what two checkpoints differ in: tensors, hyperparameters, versions",
    "average": "write the mean of several checkpoints' weights as a new checkpoint",
    "keygen": "make a pair of ed25519 keys: PATH, to sign with, and PATH.pub, to verify with",
    "completion": "print the completion script of a shell",
}  # each in its own module of this package, which is imported only if it is asked for

_WHAT = "Look at checkpoints, check them, and decide what is kept."


def verb_module(name: str) -> ModuleType:
    """Import the module of a verb: ``import`` lives in ``import_``, ``a-b`` in ``a_b``."""
    plain = name.replace("-", "_")
    return import_module(f"holdfast.cli.{plain}_" if iskeyword(plain) else f"holdfast.cli.{plain}")


def build_parser(only: str | None = None) -> Parser:
    """Return the parser of the command; with the name of a verb, one that knows the arguments of that alone."""
    parser = Parser(prog="holdfast", description=_WHAT, formatter_class=Formatter)
    parser.verbs = VERBS
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)
    for name, text in VERBS.items():
        if only not in (None, name):
            verbs.add_parser(name, help=text, formatter_class=Formatter)
            continue
        module = verb_module(name)
        verb = verbs.add_parser(
            name,
            help=text,
            description=getattr(module, "DESCRIPTION", text[0].upper() + text[1:] + "."),
            epilog=verb_epilog(getattr(module, "EXAMPLES", ""), getattr(module, "EXIT_CODES", "")),
            formatter_class=Formatter,
        )
        module.add_arguments(verb)
        add_reaching(verb, name)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    _prepare_streams()
    options = _parse(list(sys.argv[1:] if argv is None else argv))
    try:
        reach(options)
        code: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        return EXIT_BROKEN_PIPE  # the reader (head, less) has gone: that says nothing of the checkpoints
    except (HoldfastError, OSError) as error:
        return _fail(error, options)
    except KeyboardInterrupt:
        print("holdfast: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code


def _prepare_streams() -> None:
    """Have a name in letters that a stream lacks shown escaped, and somewhere to write to where one was closed."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - until the end
        if isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Let what could not be written go: the interpreter's own flush at the end must not complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse(given: list[str]) -> argparse.Namespace:
    """Read the arguments. Raises SystemExit where they are wrong, or where help or the version was all."""
    verb = given[0] if given and given[0] in VERBS else None
    parser = build_parser(verb)
    if not given:
        parser.print_help(sys.stderr)
        raise SystemExit(EXIT_USAGE)
    if verb is None and not given[0].startswith("-"):
        near = nearest(given[0], VERBS)
        hint = f"did you mean `holdfast {near}`?" if near else "`holdfast --help` lists them"
        parser.error(f"there is no command {printable(repr(given[0]))}: {hint}")
    return parser.parse_args(given)


def _fail(error: Exception, options: argparse.Namespace) -> int:
    """Say what happened on stderr; for programs also as the one JSON document that they read."""
    message = printable(_message(error))
    code = _exit_code(error)
    print(f"holdfast: {message}", file=sys.stderr)
    try:
        if getattr(options, "as_json", False):
            kind = error.code if isinstance(error, HoldfastError) else ""  # a server's own word is no code of ours
            document = {"code": kind, "kind": type(error).__name__, "message": message, "exit_code": code}
            print_json({"error": document})
        sys.stdout.flush()
    except OSError:  # there is no room for that either; stderr has it
        _forget_output()
    return code


def _message(error: Exception) -> str:
    """Return what happened; of an error of the system without its number."""
    if isinstance(error, HoldfastError) or not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}" if isinstance(error.filename, str) else error.strerror


def _exit_code(error: Exception) -> int:
    if isinstance(error, (CheckpointNotFoundError, FileNotFoundError)):  # a bucket, too
        return EXIT_NOT_FOUND
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_PROBLEM
