"""``holdfast ls``: the checkpoints of a directory, and why each one is kept."""

from __future__ import annotations

import argparse

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.look import Look, look_aside, look_at
from holdfast.cli.output import print_json, print_table
from holdfast.cli.text import age, amount, number
from holdfast.errors import EXIT_OK, EXIT_PROBLEM


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """List the checkpoints of a directory."""
    path = options.path
    looks = look_at(path)
    if options.as_json:
        print_json([look.as_dict() for look in looks])
    else:
        rows = [_row(look) for look in looks]
        print_table(("name", "step", "epoch", "score", "size", "age", "saved", "kept because"), rows)
        aside = look_aside(path)
        if aside:
            print(f"{len(aside)} damaged, set aside and not counted: `holdfast verify {path}` names them")
    return EXIT_PROBLEM if any(look.problem for look in looks) else EXIT_OK


def _row(look: Look) -> tuple[str, ...]:
    facts = look.facts
    if facts is None:
        state = "damaged" if look.damaged else "cannot be read"
        what = f"{state}: {look.problem}" if look.problem else "no manifest: not saved by holdfast"
        return (look.name, "", "", "", amount(look.size), "", "", what)
    score = f"{look.monitor}={number(look.score)}" if look.score is not None else ""
    return (
        look.name,
        str(facts.step),
        str(facts.epoch),
        score,
        amount(look.size),
        age(facts.time),
        facts.reason,
        look.kept,
    )
