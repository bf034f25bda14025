"""``holdfast doctor``: what is wrong in a directory, and what to do."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM
from holdfast.front.doctor import NOTE, PROBLEM, WARNING, doctor

DESCRIPTION = """Say what is wrong in a directory of runs, the worst first, and what to do. Nothing is changed.

Torn, foreign, left over and orphaned files; clocks that ran backwards; names and rankings that disagree; several runs
in one directory, and who is alive there; what the filesystem cannot do, tried with temporary files; free space."""
EXAMPLES = """
holdfast doctor runs/x
holdfast doctor --deep --json runs
"""
EXIT_CODES = "exit codes: 0 nothing needs doing, 1 something needs doing or looking at, 2 wrong usage, 3 nothing there"


_STYLES = {PROBLEM: "red", WARNING: "yellow", NOTE: "dim"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    parser.add_argument("--deep", action="store_true", help="also read every byte of every checkpoint")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Say what is wrong; the exit code is 1 if anything needs doing or looking at."""
    findings = doctor(options.path, deep=options.deep)
    if options.as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in () if options.as_json else findings:
        say(f"{finding.severity.upper():8} {finding.path}", _STYLES[finding.severity])
        say(f"         {finding.what}")
        say(f"         -> {finding.cure}")
    ill = [finding for finding in findings if finding.severity != NOTE]
    if not options.as_json:
        counts = Counter(finding.severity for finding in findings)
        print(", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items()) or "nothing to say")
        say("all is well" if not ill else "what needs doing stands behind the arrows", "green" if not ill else "")
    return EXIT_PROBLEM if ill else EXIT_OK
