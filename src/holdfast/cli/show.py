"""``holdfast show``: one checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.look import look_at_file
from holdfast.cli.output import print_json
from holdfast.cli.statistics import show_tensors
from holdfast.cli.text import age, amount, number, table
from holdfast.errors import EXIT_OK, printable
from holdfast.records import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    add_json(parser)
    parser.add_argument(
        "--tensor",
        metavar="NAME",
        action="append",
        help="what this tensor's values are like, or those that a pattern such as '*.weight' fits; reads no others",
    )


def run(options: argparse.Namespace) -> int:
    """Print the manifest of one checkpoint."""
    path, as_json = options.path, options.as_json
    if options.tensor:
        show_tensors(path, options.tensor, as_json=as_json)
        return EXIT_OK
    manifest = look_at_file(path)
    if manifest is None:
        message = "it has no manifest: it was not saved by holdfast"
        if as_json:
            print_json({"path": path, "manifest": None})
        else:
            print(f"{printable(path)}: {message}")
        return EXIT_OK
    if as_json:
        print_json({"path": path, "manifest": asdict(manifest)})
    else:
        print("\n".join(_story(path, manifest)))
    return EXIT_OK


def _story(path: str, manifest: Manifest) -> Iterable[str]:
    yield from map(printable, _facts(path, manifest))
    yield f"tensors ({len(manifest.tensors)})"
    rows = [
        (f"  {tensor.name}", tensor.dtype, "x".join(map(str, tensor.shape)) or "scalar", tensor.record)
        for tensor in manifest.tensors
    ]
    yield table(("  name", "dtype", "shape", "record"), rows)
    yield f"records ({len(manifest.records)})"
    records = [(f"  {record.name}", str(record.size), f"{record.crc32:08x}") for record in manifest.records]
    yield table(("  name", "bytes", "crc32"), records)


def _facts(path: str, manifest: Manifest) -> Iterable[str]:
    facts = manifest.facts
    size = sum(record.size for record in manifest.records)
    yield path
    yield f"  step {facts.step}, epoch {facts.epoch}, saved {facts.time} ({age(facts.time)})"
    yield f"  because: {facts.reason}"
    yield f"  content: {'weights only' if facts.weights_only else 'full state'} of {facts.kind}, {amount(size)}"
    yield f"  run {facts.run or '-'}, save number {facts.sequence}"
    if facts.resumed_from is not None:
        yield f"  resumed from {facts.resumed_from.path} (step {facts.resumed_from.step})"
    if facts.git_commit:
        yield f"  git commit {facts.git_commit}"
    yield "  with " + ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    for role, name in facts.names.items():
        yield f"  saved as {name} ({role})"
    yield f"metrics ({len(facts.metrics)})"
    yield from (f"  {name} = {number(value)}" for name, value in facts.metrics.items())
