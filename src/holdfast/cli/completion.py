"""``holdfast completion``: what a shell needs to complete the command's verbs, options and paths."""

from __future__ import annotations

import argparse

from holdfast.errors import EXIT_OK, MissingExtraError

SHELLS = ("bash", "zsh", "fish", "tcsh")
DESCRIPTION = """Print the completion script of a shell: have the shell read it, and the tab key knows the commands.

Needs the extra [cli]."""
EXAMPLES = """
eval "$(holdfast completion bash)"    # in ~/.bashrc
holdfast completion zsh > ~/.zfunc/_holdfast
holdfast completion fish > ~/.config/fish/completions/holdfast.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    try:
        import shtab  # noqa: PLC0415 - an extra
    except ImportError as error:
        package, extra = "shtab", "cli"
        raise MissingExtraError(package, extra) from error
    from holdfast.cli.main import build_parser  # noqa: PLC0415 - which imports the verbs

    parser = build_parser()
    for action in _actions(parser):
        if action.dest in ("path", "paths", "out", "key", "file"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=options.shell))
    return EXIT_OK


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser and of all its verbs."""
    found = []
    for action in parser._actions:  # noqa: SLF001 - argparse shows them no other way
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            found += [one for verb in action.choices.values() for one in _actions(verb)]
    return found
