"""``holdfast doctor``: what is wrong in a directory, and what to do."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, printable
from holdfast.front.doctor import NOTE, doctor

EXAMPLES = """\
  holdfast doctor runs/x
  holdfast doctor --deep --json runs"""


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
        print(printable(f"{finding.severity.upper():8} {finding.path}"))
        print(printable(f"         {finding.what}"))
        print(printable(f"         -> {finding.cure}"))
    ill = [finding for finding in findings if finding.severity != NOTE]
    if not options.as_json:
        counts = Counter(finding.severity for finding in findings)
        print(", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items()) or "nothing to say")
        print("all is well" if not ill else "what needs doing stands behind the arrows")
    return EXIT_PROBLEM if ill else EXIT_OK
