"""``holdfast diff``: what two checkpoints differ in."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.cli.arguments import add_json
from holdfast.cli.output import print_json, print_table, progress
from holdfast.cli.statistics import shape_text
from holdfast.cli.text import number
from holdfast.errors import EXIT_OK, printable
from holdfast.front.weighing import size_of

if TYPE_CHECKING:
    from holdfast.front.difference import Difference, TensorChange, ValueChange

EXAMPLES = "holdfast diff runs/a/last.ckpt runs/b/last.ckpt --top 50"

_TOP = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("a", metavar="A", help="a checkpoint: a local path or an fsspec URL")
    parser.add_argument("b", metavar="B", help="the other one; changes are from A to B")
    parser.add_argument(
        "--top", type=_count, default=_TOP, metavar="N", help=f"lines of each table, {_TOP} by default; 0 shows all"
    )
    add_json(parser)


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


_count.__name__ = "number of lines"  # what argparse calls it where it cannot read one


def run(options: argparse.Namespace) -> int:
    """Compare two checkpoints."""
    from holdfast.front.comparing import diff  # noqa: PLC0415 - imports torch

    with progress(size_of([options.a, options.b]), "comparing") as advance:
        found = diff(options.a, options.b, advance=advance)
    if options.as_json:
        print_json(found.as_dict())
    else:
        _tell(found, options.top or None)
    return EXIT_OK


def _tell(found: Difference, top: int | None) -> None:
    print(f"a: {printable(found.a)}\nb: {printable(found.b)}")
    if found.relation.text:
        print(printable(found.relation.text))
    if found.same:
        print(f"\nthe same in all tensors ({found.equal}) and all values")
    changed = [_changed(item) for item in found.changed]
    _table("tensors changed, the most first", ("name", "dtype", "shape", "relative", "largest"), changed, top)
    outline = ("name", "dtype", "shape")
    _table(
        "tensors in b alone", outline, [(item.name, item.dtype, shape_text(item.shape)) for item in found.added], top
    )
    _table(
        "tensors in a alone", outline, [(item.name, item.dtype, shape_text(item.shape)) for item in found.removed], top
    )
    reshaped = [(item.name, _pair(item.dtypes), _pair(list(map(shape_text, item.shapes)))) for item in found.reshaped]
    _table("tensors of another shape", outline, reshaped, top)
    if found.equal and not found.same:
        print(f"\ntensors that are the same: {found.equal}")
    values = ("name", "a", "b")
    for title, changes in (
        ("hyperparameters", found.hyperparameters),
        ("other values", found.values),
        ("metrics", found.metrics),
        ("versions", found.versions),
    ):
        _table(f"{title} that differ", values, [_value(change) for change in changes], top)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], top: int | None) -> None:
    if not rows:
        return
    print(f"\n{title} ({len(rows)})")
    print_table(head, rows[:top])
    if top is not None and len(rows) > top:
        print(f"... and {len(rows) - top} more: --top 0 shows all")


def _changed(item: TensorChange) -> tuple[str, ...]:
    relative = "bytes differ" if item.relative is None else number(item.relative)
    return item.name, _pair(item.dtypes), shape_text(item.shape), relative, number(item.largest)


def _pair(values: Sequence[str]) -> str:
    """Return what two values are: one if they are equal."""
    one, other = values
    return one if one == other else f"{one} -> {other}"


def _value(change: ValueChange) -> tuple[str, ...]:
    before = "" if change.what == "added" else _text(change.before)
    after = "" if change.what == "removed" else _text(change.after)
    return change.name, before, after


def _text(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
