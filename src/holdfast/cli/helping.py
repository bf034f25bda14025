"""How the help texts are laid out: groups of verbs, examples, exit codes, and the nearest name for a wrong one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Final

EXIT_BROKEN_PIPE: Final = 141  # 128 and the number of SIGPIPE, as shells count
EXIT_INTERRUPTED: Final = 130  # 128 and the number of SIGINT, as shells count

GROUPS: Final = (
    ("look", ("ls", "show", "best", "last", "diff", "plan")),
    ("decide", ("prune", "tag", "pin", "unpin", "note", "metric")),
    ("move", ("cp", "sync", "export", "import", "average")),
    ("mend and trust", ("verify", "doctor", "sign", "keygen")),
    ("set up", ("completion",)),
)

_EXIT_CODES = "exit codes: 0 all is well, 1 a problem was found, 2 wrong usage, 3 nothing there, 130 interrupted"
_INDENT = "  "
_NARROWEST = 40  # columns that help is laid out for at least


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Leaves texts as they are written. Argparse itself would import archives to ask how wide the terminal is."""

    def __init__(self, prog: str) -> None:
        """Go by ``COLUMNS``, else by the terminal, else take 80 columns."""
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal():
            width = int(columns)
        else:
            try:
                width = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1).columns
            except (OSError, ValueError, AttributeError):  # no terminal
                width = 80
        super().__init__(prog, width=max(width, _NARROWEST) - 2)


class Parser(argparse.ArgumentParser):
    """The parser of the command itself, whose help shows the verbs in groups."""

    verbs: Mapping[str, str] = {}

    def format_help(self) -> str:
        """Return the whole help text."""
        wide = max((len(name) for name in self.verbs), default=0)
        lines = [f"usage: {self.prog} COMMAND ...", "", str(self.description)]
        for title, names in _grouped(self.verbs):
            lines += ["", f"{title}:", *(f"{_INDENT}{name.ljust(wide)}  {self.verbs[name]}" for name in names)]
        lines += [
            "",
            "options:",
            f"{_INDENT}-h, --help  this text; `{self.prog} COMMAND --help` for one command, with an example",
            f"{_INDENT}--version   the version",
            "",
            "Each command takes local paths and fsspec URLs. What deletes is a dry run until --yes.",
            "Those that print take --json: one document on stdout, also for an error.",
            "",
            _EXIT_CODES,
        ]
        return "\n".join(lines) + "\n"


def verb_epilog(examples: str, exit_codes: str = "") -> str:
    """Return what stands below a verb's arguments: its examples, one a line, and what its exit code tells."""
    shown = [line for line in examples.strip().splitlines() if line.strip()]
    title = "example:" if len(shown) == 1 else "examples:"
    parts = [title, *(f"{_INDENT}{line.strip()}" for line in shown), ""] if shown else []
    return "\n".join([*parts, exit_codes or _EXIT_CODES])


def nearest(wrong: str, names: Iterable[str]) -> str:
    """Return the name that a wrong one comes nearest to; "" if none comes near."""
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    return next(iter(get_close_matches(wrong, list(names), n=1, cutoff=0.5)), "")


def _grouped(verbs: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return the verbs that there are by group; those of no group come last."""
    known = {name for _, names in GROUPS for name in names}
    groups = [(title, [name for name in names if name in verbs]) for title, names in GROUPS]
    groups.append(("more", [name for name in verbs if name not in known]))
    return [(title, names) for title, names in groups if names]
