"""``holdfast prune``: remove what the rules do not keep, saying why."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from holdfast.cli.arguments import add_json, add_path, add_yes
from holdfast.cli.output import print_json, print_table, progress, say
from holdfast.errors import EXIT_OK, EXIT_PROBLEM
from holdfast.front.pruning import Pruned, freed, prune, read_rules
from holdfast.front.sizes import amount

DESCRIPTION = """Remove the checkpoints that the rules do not keep, below a directory of one or many runs, and say of
each why. Without --yes nothing is removed.

The rules are those that each run has recorded, or those of --keep:
  Latest(n)  Best(k, 'metric', mode='max')  EverySteps(n)  EveryEpochs(n)  Thin(...)  Newer('7d')  Pinned()
  All()  Within('200GB')
joined by |: what any of them keeps is kept, then Within takes back the oldest. Whatever they say, the newest of
each run stays, and the best, the one it resumed from, and what is pinned; so does what no rule is about: last,
the files of exceptions and signals, what was saved, renamed or copied by hand, files without a manifest.

While a run that is alive saves to one of the directories, nothing is removed. Each file is looked at once more
just before it goes."""
EXAMPLES = """
holdfast prune runs/digits
holdfast prune runs --keep "Latest(3) | Best(2, 'val_loss')"
holdfast prune runs --keep "Latest(3) | Within('200GB')" --yes
"""
EXIT_CODES = "exit codes: 0 done (or said), 1 something could not be removed, 2 wrong usage, 3 nothing there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR")
    parser.add_argument("--keep", metavar="RULES", help="what to keep; by default what each run has recorded")
    parser.add_argument("-q", "--quiet", action="store_true", help="leave out what is kept")
    add_yes(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Say what goes and why; with ``--yes`` remove it."""
    keep = None if options.keep is None else read_rules(options.keep)
    with progress(0, "removing" if options.yes else "planning") as advance:
        pruned = prune(options.path, keep, dry_run=not options.yes, progress=advance)
    shown = [item for item in pruned if not (options.quiet and item.keep)]
    if options.as_json:
        print_json([_as_dict(item) for item in shown])
    else:
        if shown:
            print_table(("", "name", "size", "because"), [_row(item, done=options.yes) for item in shown])
        say(_sum(pruned, options), "bold")
    return EXIT_PROBLEM if any(item.spared for item in pruned) else EXIT_OK


def _as_dict(item: Pruned) -> dict[str, Any]:
    """Return it for JSON; the keys are stable."""
    return {
        "name": item.name,
        "path": item.path,
        "size": item.size,
        "keep": item.keep,
        "reason": item.reason,
        "rules": list(item.rules),
        "rank": item.rank,
        "removed": item.removed,
        "spared": item.spared,
    }


def _row(item: Pruned, *, done: bool) -> tuple[str, ...]:
    if item.spared:
        return ("still there", item.name, amount(item.size), item.spared)
    what = "keep" if item.keep else "removed" if done else "remove"
    return (what, item.name, amount(item.size), item.reason)


def _sum(pruned: Sequence[Pruned], options: argparse.Namespace) -> str:
    going = sum(not item.keep and not item.spared for item in pruned)
    left = sum(bool(item.spared) for item in pruned)
    if left and options.yes:
        done = f"removed {going} of {len(pruned)}, {amount(freed(pruned))}"
        return f"{done}; {left} that the rules do not keep are still there"
    if not going:
        return f"nothing to remove: all {len(pruned)} are kept" if pruned else f"no checkpoints in {options.path}"
    many = f"{going} of {len(pruned)}, {amount(freed(pruned))}"
    return f"removed {many}" if options.yes else f"would remove {many}; nothing was removed: --yes does it"
