"""``holdfast ls``: the checkpoints of a directory, and why each one is kept."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, print_table, say
from holdfast.cli.text import age, number
from holdfast.errors import EXIT_OK, EXIT_PROBLEM
from holdfast.front.catalog import Catalog, catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.mirrored import Mirrored, mirrored
from holdfast.front.sizes import amount

DESCRIPTION = """List the checkpoints below a directory, run by run, newest first: what each holds and why it is kept.

Reads the manifests, and no tensors: `holdfast verify` checks the bytes. What is torn, foreign or cannot be read is
listed as such. Sizes are those on the disk: a file with two names counts once in the sums."""
EXAMPLES = """
holdfast ls runs/digits
holdfast ls runs --sort score
holdfast ls runs/digits --mirror s3://bucket/digits
holdfast ls runs --json | jq -r '.[] | select(.pinned) | .path'
"""
EXIT_CODES = "exit codes: 0 listed, 1 a file's manifest cannot be read, 2 wrong usage, 3 nothing there"

_SHOWN = 3  # metrics of a row at most; `show` has them all
_FLUSH_RIGHT = ("step", "epoch", "size")


def _by_score(item: Checkpoint) -> float:
    """Return what sorts the best first; those without a real score last."""
    score = item.score
    if score is None or math.isnan(score):
        return math.inf
    return -score if item.mode == "max" else score


_SORTS: Mapping[str, Callable[[Checkpoint], Any] | None] = {
    "newest": None,  # the order of the catalog
    "step": lambda item: -item.step,
    "size": lambda item: -item.size,
    "score": _by_score,
    "name": lambda item: item.name,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    parser.add_argument("--sort", choices=tuple(_SORTS), default="newest", help="the order within each run")
    parser.add_argument("--mirror", metavar="URL", help="ask this mirror which of them it has")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """List the checkpoints of a directory."""
    listed = catalog(options.path)
    copies = mirrored(options.path, options.mirror)
    groups = [_sorted(group, options.sort) for group in _groups(listed)]
    if options.as_json:
        print_json([_as_dict(item, copies) for group in groups for item in group])
    else:
        _print(listed, groups, copies)
    return EXIT_PROBLEM if any(item.problem for item in listed) else EXIT_OK


def _groups(listed: Catalog) -> list[list[Checkpoint]]:
    """Return the checkpoints of each run and folder, in the catalog's order.

    Those without a manifest are with the run whose folder they are in, at its end.
    """
    groups: dict[tuple[str, str], list[Checkpoint]] = {}
    runs: dict[str, str] = {}
    for item in listed:
        run = runs.setdefault(item.folder, "") if item.facts is None else item.run
        runs[item.folder] = run
        groups.setdefault((item.folder, run), []).append(item)
    return list(groups.values())


def _sorted(group: Iterable[Checkpoint], by: str) -> list[Checkpoint]:
    key = _SORTS[by]
    return list(group) if key is None else sorted(group, key=key)


def _print(listed: Catalog, groups: Sequence[Sequence[Checkpoint]], copies: Mirrored) -> None:
    several = len(groups) > 1
    for group in groups:
        if several:
            say(_title(group), "bold")
        _print_group(group, copies, inside=several)
        if several:
            print()
    if len(listed) > 1:
        say(_sum(listed), "bold")
    for mirror in copies.mirrors if listed else ():
        there = sum(mirror in copies.of(item) for item in listed)
        when = "now" if copies.asked else "at the last upload: `--mirror URL` asks"
        say(f"{there} of {len(listed)} on the mirror {mirror} ({when})", "dim")
    if listed.aside:
        say(
            f"{len(listed.aside)} damaged, set aside and not counted: `holdfast verify {listed.path}` names them", "dim"
        )


def _print_group(group: Sequence[Checkpoint], copies: Mirrored, *, inside: bool) -> None:
    tagged = any(item.pinned or item.tags for item in group)
    more = [*(["tags"] if tagged else []), *(["mirrored"] if copies.mirrors else [])]
    head = ["name", "step", "epoch", "metrics", "size", "age", *more, "kept because"]
    rows = [_row(item, copies, inside=inside, tagged=tagged) for item in group]
    print_table(head, rows, right=_FLUSH_RIGHT)


def _row(item: Checkpoint, copies: Mirrored, *, inside: bool, tagged: bool) -> list[str]:
    tags = [", ".join([*(["pinned"] if item.pinned else []), *item.tags])] if tagged else []
    tags += ["yes" if copies.of(item) else "no"] if copies.mirrors else []
    name = item.name[len(item.folder) :] if inside else item.name
    if item.facts is None:
        state = "damaged" if item.damaged else "cannot be read"
        what = f"{state}: {item.problem}" if item.problem else "no manifest: not saved by holdfast"
        return [name, "", "", "", amount(item.size), "", *tags, what]
    when = age(item.facts.time)
    return [name, str(item.step), str(item.epoch), _metrics(item), amount(item.size), when, *tags, item.kept]


def _metrics(item: Checkpoint) -> str:
    """Return the first few metrics, the monitored one before all others."""
    names = sorted(item.metrics, key=lambda name: name != item.monitor)
    more = " …" if len(names) > _SHOWN else ""
    return " ".join(f"{name}={number(item.metrics[name])}" for name in names[:_SHOWN]) + more


def _title(group: Sequence[Checkpoint]) -> str:
    first = group[0]
    where = first.folder.rstrip("/") or "."
    run = f"run {first.run}, " if first.run else ""
    return f"{where}: {run}{_many(len(group))}, {amount(_size(group))}"


def _size(group: Iterable[Checkpoint]) -> int:
    return sum({item.file_id or item.name: item.size for item in group}.values())


def _many(count: int) -> str:
    return f"{count} checkpoint{'' if count == 1 else 's'}"


def _sum(listed: Catalog) -> str:
    runs = len({(item.run, item.folder) for item in listed if item.facts is not None})
    return f"{_many(len(listed))} of {runs} run{'' if runs == 1 else 's'}, {amount(listed.size)} on disk"


def _as_dict(item: Checkpoint, copies: Mirrored) -> dict[str, Any]:
    """Return it for JSON; the keys are stable."""
    return {
        "name": item.name,
        "path": item.path,
        "size": item.size,
        "file_id": item.file_id,
        "run": item.run,
        "role": item.role,
        "kept": item.kept,
        "problem": item.problem,
        "damaged": item.damaged,
        "pinned": item.pinned,
        "tags": list(item.tags),
        "notes": [{"text": note.text, "time": note.time} for note in item.notes],
        "metrics": item.metrics,
        "late_metrics": item.late_metrics,
        "monitor": item.monitor,
        "mode": item.mode if item.monitor is not None else None,
        "score": item.score,
        "mirrored": copies.of(item) if copies.mirrors else None,
        "facts": asdict(item.facts) if item.facts is not None else None,
    }
