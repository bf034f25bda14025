"""``holdfast export``: the weights of a checkpoint, for other programs."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.output import print_json, progress, say
from holdfast.errors import EXIT_OK
from holdfast.front.catalogue import size_at
from holdfast.front.sizes import amount

DESCRIPTION = """Write the weights of a checkpoint for other programs: as safetensors, in shards with the index that
Hugging Face's loader reads, or as one file that torch.load(weights_only=True) reads. Or a sharded checkpoint, a
directory, as one .ckpt with all of its state. Memory of the largest tensor is enough.

The checkpoint is verified first, and not touched. Tied weights are written once. Nothing is written over without
--force; the index of several shards is written last."""
EXAMPLES = """
holdfast export last.ckpt hub/ --strip-prefix model. --dtype bfloat16
holdfast export last.ckpt weights.pt --to torch
holdfast export runs/llm/step=9000.ckpt one.ckpt
"""
EXIT_CODES = """exit codes: 0 done, 1 the checkpoint is damaged, holds no weights, or nothing could be written,
2 wrong usage, or a file is in the way, 3 nothing there"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "FILE")
    parser.add_argument("out", metavar="OUT", help="a directory, or a file (*.safetensors; with --to torch any)")
    parser.add_argument(
        "--to",
        choices=("safetensors", "torch", "checkpoint"),
        help="default: checkpoint if OUT ends in .ckpt, else safetensors",
    )
    parser.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="of one safetensors file; default: 5GB")
    parser.add_argument("--dtype", metavar="DTYPE", help="cast floating-point weights: float16, bfloat16, float32 ...")
    parser.add_argument("--optimizer", action="store_true", help="with --to torch: also the optimizer's state")
    parser.add_argument("--strip-prefix", metavar="PREFIX", default="", help="taken off names; what lacks it stays out")
    parser.add_argument("--entry", metavar="NAME", help="the key of the weights, if that is none of the usual ones")
    add_writing(parser)
    add_json(parser)


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Declare ``--force`` and ``--allow-unsafe``, which ``import`` takes as well."""
    parser.add_argument("--force", action="store_true", help="write over what is there")
    parser.add_argument(
        "--allow-unsafe",
        action="store_true",
        help="run whatever code the file names: only for one that you would run as a program",
    )


def run(options: argparse.Namespace) -> int:
    """Export one checkpoint."""
    size = size_at(options.path)  # before torch is imported: a wrong path is told at once
    from holdfast.front.exporting import export  # noqa: PLC0415 - imports torch

    with progress(size, "exporting") as advance:
        done = export(
            options.path,
            options.out,
            to=options.to,
            max_shard_size=int(options.max_shard_size)
            if options.max_shard_size.isdecimal()
            else options.max_shard_size,
            dtype=options.dtype,
            optimizer=options.optimizer,
            strip_prefix=options.strip_prefix,
            entry=options.entry,
            force=options.force,
            allow_unsafe=options.allow_unsafe,
            progress=advance,
        )
    if options.as_json:
        print_json(asdict(done))
        return EXIT_OK
    for path in done.files:
        say(path)
    print(f"{done.tensors} tensors, {amount(done.size)}")
    for name, kept in done.tied.items():
        say(f"tied: {name} is {kept}, and is written once")
    if done.left_out:
        say(f"left out ({len(done.left_out)}): {', '.join(done.left_out)}")
    return EXIT_OK
