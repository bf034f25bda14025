"""``holdfast show``: one checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from holdfast.cli.arguments import add_json, add_path, positive
from holdfast.cli.look import look_at_file
from holdfast.cli.output import print_json, print_table, say
from holdfast.cli.text import age, amount, number
from holdfast.cli.tree import HEAD, RIGHT, tree
from holdfast.errors import EXIT_OK
from holdfast.records import Manifest

DESCRIPTION = """Tell everything that a checkpoint says of itself: its manifest, where it comes from, what it was made
with, its tensors. Reads none of their bytes, but for those of --tensor."""
EXAMPLES = """
holdfast show runs/digits/last.ckpt
holdfast show --depth 2 runs/digits/last.ckpt
holdfast show --tensor model.0.weight runs/digits/last.ckpt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    add_json(parser)
    parser.add_argument("--depth", type=positive, metavar="N", help="fold the tree of tensors below N levels")
    parser.add_argument("--records", action="store_true", help="list the records of the file, with their digests")
    parser.add_argument(
        "--tensor",
        metavar="NAME",
        action="append",
        default=[],
        help="the statistics of this tensor (min, max, mean, norm, NaN and Inf); can be given several times",
    )


def run(options: argparse.Namespace) -> int:
    """Print the manifest of one checkpoint, or the statistics of some of its tensors."""
    path = options.path
    if options.tensor:
        return _statistics(options)
    manifest = look_at_file(path)
    if options.as_json:
        print_json({"path": path, "manifest": asdict(manifest) if manifest is not None else None})
    elif manifest is None:
        say(f"{path}: it has no manifest: it was not saved by holdfast")
    else:
        _print(path, manifest, options)
    return EXIT_OK


def _print(path: str, manifest: Manifest, options: argparse.Namespace) -> None:
    say(path, "bold")
    for line in _facts(manifest):
        say(line, "" if line.startswith(" ") else "bold")
    say(f"tensors ({len(manifest.tensors)})", "bold")
    print_table(HEAD, tree(manifest, options.depth), right=RIGHT)
    if options.records:
        say(f"records ({len(manifest.records)})", "bold")
        records = [(f"  {record.name}", str(record.size), f"{record.crc32:08x}") for record in manifest.records]
        print_table(("  name", "bytes", "crc32"), records, right=("bytes",))


def _facts(manifest: Manifest) -> Iterable[str]:
    facts = manifest.facts
    size = sum(record.size for record in manifest.records)
    yield f"  step {facts.step}, epoch {facts.epoch}, saved {facts.time} ({age(facts.time)})"
    yield f"  because: {facts.reason}"
    yield f"  content: {'weights only' if facts.weights_only else 'full state'} of {facts.kind}, {amount(size)}"
    yield from (f"  saved as {name} ({role})" for role, name in facts.names.items())
    yield "lineage"
    yield f"  run {facts.run or '-'}, save number {facts.sequence}"
    if facts.resumed_from is not None:
        origin = facts.resumed_from
        of = f" of run {origin.run}" if origin.run and origin.run != facts.run else ""
        yield f"  resumed from {origin.path} (step {origin.step}{of})"
    if facts.git_commit:
        yield f"  git commit {facts.git_commit}"
    yield "environment"
    yield from (f"  {name} {version}" for name, version in facts.versions.items())
    yield f"metrics ({len(facts.metrics)})"
    yield from (f"  {name} = {number(value)}" for name, value in facts.metrics.items())


def _statistics(options: argparse.Namespace) -> int:
    """Print what some tensors are like, without loading the rest."""
    found: list[Any] = import_module("holdfast.front.tensors").statistics(options.path, options.tensor)
    rows = [item if isinstance(item, dict) else asdict(item) for item in found]
    if options.as_json:
        print_json({"path": options.path, "tensors": rows})
        return EXIT_OK
    head = list(dict.fromkeys(key for row in rows for key in row))
    print_table(head, [[_shown(row.get(key)) for key in head] for row in rows])
    return EXIT_OK


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "x".join(map(str, value)) or "scalar"
    return number(value) if isinstance(value, float) else "" if value is None else str(value)
