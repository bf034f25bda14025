"""``holdfast show``: one checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict

from holdfast.cli import noting
from holdfast.cli.arguments import add_json, add_path, positive
from holdfast.cli.output import print_json, print_table, say
from holdfast.cli.statistics import show_tensors
from holdfast.cli.text import age, number
from holdfast.cli.tree import HEAD, RIGHT, tree
from holdfast.errors import EXIT_OK, DamagedCheckpointError
from holdfast.front.catalog import open_checkpoint
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.mirrored import mirrors_of
from holdfast.front.sizes import amount
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
        help="only the statistics (least, greatest, mean, norm, NaNs) of this tensor, or of a pattern such as "
        "'*.bias'; can be given several times",
    )


def run(options: argparse.Namespace) -> int:
    """Print what one checkpoint says of itself and people of it, or the statistics of some of its tensors."""
    checkpoint = open_checkpoint(options.path)
    if options.tensor:
        show_tensors(checkpoint.path, options.tensor, as_json=options.as_json)
        return EXIT_OK
    manifest = checkpoint.manifest
    if manifest is None and checkpoint.damaged:
        raise DamagedCheckpointError(checkpoint.path, "the file", checkpoint.problem.removeprefix("the file: "))
    if options.as_json:
        print_json(
            {**noting.as_dict(checkpoint), "manifest": asdict(manifest) if manifest is not None else None}
            | {"mirrored": mirrors_of(checkpoint)}
        )
    elif manifest is None:
        say(f"{checkpoint.path}: it has no manifest: it was not saved by holdfast")
    else:
        _print(checkpoint, manifest, options)
    return EXIT_OK


def _print(checkpoint: Checkpoint, manifest: Manifest, options: argparse.Namespace) -> None:
    say(checkpoint.path, "bold")
    for line in (*_facts(manifest, mirrors_of(checkpoint)), *_said(checkpoint)):
        say(line, "" if line.startswith(" ") else "bold")
    say(f"tensors ({len(manifest.tensors)})", "bold")
    print_table(HEAD, tree(manifest, options.depth), right=RIGHT)
    if options.records:
        say(f"records ({len(manifest.records)})", "bold")
        records = [(f"  {record.name}", str(record.size), f"{record.crc32:08x}") for record in manifest.records]
        print_table(("  name", "bytes", "crc32"), records, right=("bytes",))


def _facts(manifest: Manifest, mirrors: Iterable[str]) -> Iterable[str]:
    facts = manifest.facts
    size = sum(record.size for record in manifest.records)
    yield f"  step {facts.step}, epoch {facts.epoch}, saved {facts.time} ({age(facts.time)})"
    yield f"  because: {facts.reason}"
    yield f"  content: {'weights only' if facts.weights_only else 'full state'} of {facts.kind}, {amount(size)}"
    yield from (f"  saved as {name} ({role})" for role, name in facts.names.items())
    yield from (f"  on the mirror {mirror}, at the last upload" for mirror in mirrors)
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


def _said(checkpoint: Checkpoint) -> Iterable[str]:
    """Yield what people say of it, if they say anything."""
    if checkpoint.late_metrics:
        yield f"metrics attached later ({len(checkpoint.late_metrics)})"
        yield from (f"  {name} = {number(value)}" for name, value in checkpoint.late_metrics.items())
    if checkpoint.pinned or checkpoint.tags:
        yield "tags"
        yield from (f"  {tag}" for tag in (*(["pinned"] if checkpoint.pinned else []), *checkpoint.tags))
    if checkpoint.notes:
        yield f"notes ({len(checkpoint.notes)})"
        yield from (f"  {note.time}: {note.text}" for note in checkpoint.notes)
    yield from (f"damaged note: {problem}" for problem in checkpoint.damaged_notes)
