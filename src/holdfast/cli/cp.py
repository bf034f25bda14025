"""``holdfast cp``: copy a checkpoint, or a directory of runs, and verify the copy."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, progress, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM
from holdfast.front.catalogue import size_at
from holdfast.front.moving import copy
from holdfast.front.sizes import amount

DESCRIPTION = """Copy a checkpoint, or everything in a directory, and verify the copy.

On the way each checkpoint is checked against its manifest: what is damaged is not copied. What was written is read
back. The same command again skips what is there, and goes on where it stopped. Signatures and notes come along."""
EXAMPLES = """
holdfast cp runs/x s3://bucket/runs/x
holdfast cp s3://bucket/runs/x/last.ckpt .
"""
EXIT_CODES = """exit codes: 0 all is there, 1 something was not copied: it is named, 2 wrong usage, or another file
is in the way of the one, 3 nothing there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "SOURCE", "a file or a directory: a local path or an fsspec URL")
    parser.add_argument("target", metavar="TARGET", help="the new file; of a directory the one that takes its content")
    parser.add_argument("--force", action="store_true", help="write over files that are there and are not the same")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Copy, and say what became of each file that was not simply copied."""
    with progress(size_at(options.path), "copying") as advance:
        done = copy(options.path, options.target, force=options.force, progress=advance)
    if options.as_json:
        problems = [{"path": path, "problem": problem} for path, problem in done.problems]
        print_json({**asdict(done), "problems": problems})
    else:
        counts = [f"{len(done.copied)} copied and read back ({amount(done.size)})"]
        counts += [f"{len(done.linked)} linked"] * bool(done.linked)
        counts += [f"{len(done.skipped)} there already"] * bool(done.skipped)
        print(", ".join(counts))
        for path, problem in done.problems:
            say(f"NOT COPIED  {path}: {problem}")
    return EXIT_PROBLEM if done.problems else EXIT_OK
