"""``holdfast import``: a checkpoint with a manifest, of what other programs wrote."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.export import add_writing
from holdfast.cli.output import print_json, progress, say
from holdfast.cli.text import number
from holdfast.errors import EXIT_OK, ConfigurationError
from holdfast.front.catalogue import size_at
from holdfast.front.sizes import amount

DESCRIPTION = """Make a checkpoint with a manifest of safetensors (a file, an index, a directory), or of a file that
torch.save or Lightning wrote, so that it can be ranked, verified and kept.

Step, epoch and metrics are taken from the file where it has them; what is given here counts over that. No code of
the file is run. What is imported counts to a run of its own, which no training takes for its own."""
EXAMPLES = """
holdfast import hub/model.safetensors runs/x/ --step 1000 --metric val_loss=0.31 --monitor val_loss
holdfast import lightning_logs/version_0/checkpoints/epoch=3.ckpt runs/x/epoch=3.ckpt
"""
EXIT_CODES = """exit codes: 0 done, 1 the file is damaged, needs code to be run, or nothing could be written,
2 wrong usage, or a file is in the way, 3 nothing there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "PATH", "a safetensors file, its index or directory, or a file of torch.save or Lightning")
    parser.add_argument("out", metavar="OUT", help="the checkpoint to write, or a directory")
    parser.add_argument(
        "--metric", metavar="NAME=VALUE", action="append", default=[], help="a metric of it; may be given several times"
    )
    parser.add_argument("--step", type=int, help="the optimizer steps; default: as the file has them")
    parser.add_argument("--epoch", type=int, help="the epoch; default: as the file has it")
    parser.add_argument("--run", metavar="RUN", dest="of_run", help="the run it counts to; default: imported")
    parser.add_argument("--monitor", metavar="NAME", help="the metric by which it is ranked")
    parser.add_argument("--mode", choices=("min", "max"), help="which of its values are better")
    parser.add_argument("--add-prefix", metavar="PREFIX", default="", help="put before the weights' names")
    parser.add_argument("--entry", metavar="NAME", help="the key of the weights, if that is none of the usual ones")
    add_writing(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Import one file, or the shards of an index."""
    metrics = dict(map(_metric, options.metric))
    size = size_at(options.path)
    from holdfast.front.importing import import_checkpoint  # noqa: PLC0415 - imports torch

    with progress(size, "importing") as advance:
        made = import_checkpoint(
            options.path,
            options.out,
            metrics=metrics,
            step=options.step,
            epoch=options.epoch,
            run=options.of_run,
            monitor=options.monitor,
            mode=options.mode,
            add_prefix=options.add_prefix,
            entry=options.entry,
            force=options.force,
            allow_unsafe=options.allow_unsafe,
            progress=advance,
        )
    facts, tensors = made.manifest.facts, len(made.manifest.tensors)
    if options.as_json:
        print_json({"path": made.path, "facts": asdict(facts), "tensors": tensors})
        return EXIT_OK
    size = sum(record.size for record in made.manifest.records)
    say(f"{made.path}: {tensors} tensors, {amount(size)}")
    told = "".join(f", {name}={number(value)}" for name, value in facts.metrics.items())
    say(f"step {facts.step}, epoch {facts.epoch}{told}")
    return EXIT_OK


def _metric(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        if not equals or not name:
            raise ValueError  # noqa: TRY301 - told below, like a value that is no number
        return name, float(value)
    except ValueError as error:
        msg = f"--metric takes NAME=VALUE with a number, such as val_loss=0.31, but got {text!r}"
        raise ConfigurationError(msg) from error
