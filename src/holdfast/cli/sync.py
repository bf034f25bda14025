"""``holdfast sync``: bring the checkpoints of a directory to another one, and go on where it was cut off."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import asdict
from typing import Any

from holdfast.cli.arguments import add_json, add_path, positive
from holdfast.cli.output import print_json, progress, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, ConfigurationError, printable
from holdfast.front.catalog import catalog
from holdfast.front.pruning import read_rules
from holdfast.front.sizes import amount, parse_size
from holdfast.front.syncing import Synced, sync

DESCRIPTION = """Bring the checkpoints of a directory to another one, with what is said of them and their signatures.
What is there already is not sent again. Each is checked against its manifest on the way, and is there whole or not
at all. Cut off, by a kill as well, the same command goes on with the parts that the server has. A run may be
training in the directory meanwhile: `Checkpointer(mirror=...)` does the same by itself.

Nothing at the target is removed, unless --keep says what is to be kept there: then what it does not name is neither
brought there nor left there; but the newest of each run, the best, the one it resumed from and what is pinned stay."""
EXAMPLES = """
holdfast sync runs/digits s3://bucket/digits
holdfast sync runs/digits s3://bucket/digits --bandwidth 50MB/s --keep "Latest(3) | Best(2, 'val_loss')"
holdfast sync s3://bucket/digits runs/digits
"""
EXIT_CODES = """exit codes: 0 all is there, 1 something was not brought there: it is named, 2 wrong usage, 3 nothing
there to bring"""

_PER_SECOND = re.compile(r"\s*(?:/\s*s|ps)\s*$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "SOURCE", "a directory of checkpoints: a local path or an fsspec URL")
    parser.add_argument("target", metavar="TARGET", help="the directory or URL that is to have them as well")
    parser.add_argument("--keep", metavar="RULES", help="what to keep at the target; by default all")
    parser.add_argument("--bandwidth", metavar="RATE", help="at most so much a second, such as 50MB/s")
    parser.add_argument("--workers", metavar="N", type=positive, default=4, help="parts on their way at a time (4)")
    parser.add_argument("--force", action="store_true", help="write over checkpoints of other runs, or newer ones")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be done")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Bring them there, and say what became of them."""
    keep = None if options.keep is None else read_rules(options.keep)
    words: dict[str, Any] = {"keep": keep, "bandwidth": _rate(options.bandwidth), "workers": options.workers}
    words["force"] = options.force
    begun = time.monotonic()
    if options.dry_run:
        done = sync(options.path, options.target, dry_run=True, **words)
    else:
        with progress(sum(item.size for item in catalog(options.path)), "sending") as advance:
            done = sync(options.path, options.target, progress=advance, **words)
    seconds = time.monotonic() - begun
    if options.as_json:
        problems = [{"name": name, "problem": problem} for name, problem in done.problems]
        print_json({**asdict(done), "problems": problems, "dry_run": options.dry_run, "seconds": round(seconds, 3)})
    else:
        print(_sum(done, seconds, dry_run=options.dry_run))
        for name, problem in done.problems:
            say(f"NOT THERE  {printable(name)}: {problem}")
    return EXIT_PROBLEM if done.problems else EXIT_OK


def _rate(text: str | None) -> int | None:
    """Return bytes per second: of ``50MB/s``, ``50MB`` or a number."""
    if text is None:
        return None
    try:
        return parse_size(_PER_SECOND.sub("", text), "--bandwidth")
    except ConfigurationError as error:
        msg = f"--bandwidth is a number of bytes per second, such as 50MB/s, but got {text!r}"
        raise ConfigurationError(msg) from error


def _sum(done: Synced, seconds: float, *, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    rate = f", {amount(int(done.size / seconds))}/s" if done.copied and not dry_run and seconds > 0 else ""
    counts = [f"{len(done.copied)} {would}sent ({amount(done.size)}{rate})"]
    counts += [f"{len(done.linked)} {would}copied there"] * bool(done.linked)
    counts += [f"{len(done.skipped)} there already"] * bool(done.skipped)
    counts += [f"{len(done.left_out)} left out by the rules"] * bool(done.left_out)
    counts += [f"{len(done.removed)} {would}removed there"] * bool(done.removed)
    return ", ".join(counts)
