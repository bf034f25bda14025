"""What the verbs say that have changed what is said of a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from holdfast.cli.output import print_json, say
from holdfast.cli.text import number
from holdfast.errors import EXIT_OK
from holdfast.front.catalog import open_checkpoint
from holdfast.front.checkpoint import Checkpoint


def as_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what is said of a checkpoint, for JSON; the keys are stable."""
    return {
        "path": checkpoint.path,
        "pinned": checkpoint.pinned,
        "tags": list(checkpoint.tags),
        "notes": [{"text": note.text, "time": note.time} for note in checkpoint.notes],
        "late_metrics": dict(checkpoint.late_metrics),
    }


def say_of_each(options: argparse.Namespace, change: Callable[[Checkpoint], object]) -> int:
    """Change what is said of each of the paths, once all of them are known to be there; print what is said now."""
    checkpoints = [open_checkpoint(path) for path in options.paths]
    for checkpoint in checkpoints:
        change(checkpoint)
    return say_what_is_said(checkpoints, as_json=options.as_json)


def say_what_is_said(checkpoints: Sequence[Checkpoint], *, as_json: bool) -> int:
    """Print what is said of these checkpoints now, each as it was read after something was said of it."""
    if len(checkpoints) > 1:  # one may be another name of an earlier one
        checkpoints = [open_checkpoint(checkpoint.path) for checkpoint in checkpoints]
    if as_json:
        print_json([as_dict(checkpoint) for checkpoint in checkpoints])
    else:
        for checkpoint in checkpoints:
            say(f"{checkpoint.path}: {', '.join(phrases(checkpoint)) or 'not pinned, no tags, no notes'}")
    return EXIT_OK


def phrases(checkpoint: Checkpoint) -> list[str]:
    """Return what is said of a checkpoint, in a few words each."""
    said = ["pinned"] if checkpoint.pinned else []
    if checkpoint.tags:
        said.append(f"tags: {' '.join(checkpoint.tags)}")
    if checkpoint.notes:
        count = len(checkpoint.notes)
        said.append(f"{'1 note' if count == 1 else f'{count} notes, the last'}: {checkpoint.notes[-1].text}")
    if checkpoint.late_metrics:
        said.append(", ".join(f"{name}={number(value)}" for name, value in checkpoint.late_metrics.items()))
    return said
