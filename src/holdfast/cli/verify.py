"""``holdfast verify``: every byte of a checkpoint, or of all in a directory."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, progress, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM
from holdfast.front.catalogue import aside, leftovers
from holdfast.front.sizes import amount

if TYPE_CHECKING:
    from holdfast.front.verifying import Verified

DESCRIPTION = """Read every byte of a checkpoint, or of all below a directory of runs, and check every digest.

Names the record that is damaged. Also tells of files that were set aside as damaged, and of what saves that
died have left unfinished: no run uses these, and they do not make the exit code 1."""
EXAMPLES = """
holdfast verify runs/digits
holdfast verify --quiet --json runs | jq '.[].path'
holdfast verify --key lab.pub from-a-stranger.ckpt
"""
EXIT_CODES = """exit codes: 0 all are whole (and signed, with --key), 1 one is damaged or cannot be judged,
2 wrong usage, 3 nothing there"""

KEYS = ("path", "size", "whole", "record", "problem", "manifest", "signed", "set_aside", "leftover")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR|FILE")
    add_json(parser)
    parser.add_argument("--key", metavar="PUBLIC", help="also check that this key's owner has signed it")
    parser.add_argument("-q", "--quiet", action="store_true", help="leave out those that are whole")


def run(options: argparse.Namespace) -> int:
    """Check one checkpoint, or all of a directory; with a key also who has signed them."""
    from holdfast.front.verifying import looked_at, verify_each  # noqa: PLC0415 - imports torch

    path = options.path
    files, seen = looked_at(path)
    begin = time.monotonic()
    with progress(sum(item.size for item in files), "verifying") as advance:
        results = verify_each(files, key=options.key, progress=advance)
    seconds = time.monotonic() - begin
    # What no run uses is no reason for the exit code of a problem.
    unused = {"set_aside": aside(path, seen), "leftover": leftovers(path)} if seen is not None else {}
    shown = [result for result in results if not (options.quiet and result.whole)]
    if options.as_json:
        print_json([*map(_as_dict, shown), *(_unused(item, why) for why, items in unused.items() for item in items)])
    else:
        _print(shown, unused)
        if len(results) != 1:
            say(_sum(path, results, seconds), "bold")
    return EXIT_OK if all(result.whole for result in results) else EXIT_PROBLEM


def _print(shown: Sequence[Verified], unused: dict[str, list[str]]) -> None:
    for result in shown:
        say(*_verdict(result))
    for item in unused.get("set_aside", ()):
        say(f"aside    {item}: damaged; no run uses it", "dim")
    for item in unused.get("leftover", ()):
        say(f"torn     {item}: unfinished: its writer died (the next run here removes it) or is at it now", "dim")


def _as_dict(result: Verified) -> dict[str, Any]:
    """Return it for JSON; the keys are stable, and the same for each."""
    return {
        "path": result.path,
        "size": result.size,
        "whole": result.whole,
        "record": result.record,
        "problem": result.problem,
        "manifest": result.has_manifest,
        "signed": result.signed,
        "set_aside": False,
        "leftover": False,
    }


def _unused(path: str, why: str) -> dict[str, Any]:
    """Return the like of a file that no run uses."""
    return {**dict.fromkeys(KEYS), "path": path, "whole": False, "set_aside": False, "leftover": False, why: True}


def _verdict(result: Verified) -> tuple[str, str]:
    """Return the line on one checkpoint, and its style."""
    path = result.path
    if result.signed is False:
        return f"UNSIGNED {path}: {result.problem}", "red"
    if result.whole is None:
        return f"unknown  {path}: {result.problem}", "yellow"
    if not result.whole:
        return f"DAMAGED  {path}: {result.record}: {result.problem}", "red"
    if result.signed:
        return f"signed   {path}", "green"
    by = "" if result.has_manifest else " (no manifest: checked by the zip's own checksums)"
    more = f" ({result.problem})" if result.problem else ""
    return f"whole    {path}{by}{more}", ""


def _sum(path: str, results: Sequence[Verified], seconds: float) -> str:
    """Return how many were whole, and how fast that was found out."""
    if not results:
        return f"no checkpoints in {path}"
    whole = sum(bool(result.whole) for result in results)
    damaged = sum(result.whole is False for result in results)
    counts = {"whole": whole, "damaged": damaged, "unknown": len(results) - whole - damaged}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count or what == "whole")
    size = sum(result.size for result in results)
    return f"{said}: {amount(size)} in {seconds:.1f} s, {amount(int(size / max(seconds, 1e-3)))}/s"
