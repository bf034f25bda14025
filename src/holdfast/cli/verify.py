"""``holdfast verify``: every byte of a checkpoint, or of all in a directory."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.cli.arguments import add_json, add_path
from holdfast.cli.look import files_at, look_aside
from holdfast.cli.output import print_json
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, DamagedCheckpointError, NewerFormatError, SignatureError, printable
from holdfast.front.catalogue import has_checksums, is_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_path(parser, "DIR|FILE")
    add_json(parser)
    parser.add_argument("--key", metavar="PUBLIC", help="also check that this key's owner has signed it")


def run(options: argparse.Namespace) -> int:
    """Check one checkpoint, or all of a directory; with a key also who has signed them."""
    path, key = options.path, options.key
    from holdfast.front.opening import verify as verify_file  # noqa: PLC0415 - imports torch

    several = is_directory(path)
    results: list[dict[str, Any]] = []
    for item in files_at(path):
        try:
            manifest = verify_file(item, key=key)
        except DamagedCheckpointError as error:  # noqa: PERF203 - one bad file must not hide the others
            results.append({"path": item, "whole": False, "record": error.record, "problem": error.problem})
        except NewerFormatError as error:
            results.append({"path": item, "whole": None, "problem": f"its {error.problem}"})
        except SignatureError as error:
            results.append({"path": item, "whole": None, "signed": False, "problem": error.problem})
        else:
            checked = manifest is not None or key is not None or has_checksums(item)
            signed = {} if key is None else {"signed": True}
            results.append({"path": item, "whole": checked or None, "manifest": manifest is not None, **signed})
    aside = look_aside(path) if several else []  # known already: no reason for the exit code of a problem
    if options.as_json:
        print_json([*results, *({"path": item, "whole": False, "set_aside": True} for item in aside)])
    else:
        lines = [_verdict(result) for result in results] or [f"no checkpoints in {path}"]
        lines += [f"aside    {item}: damaged; no run uses it" for item in aside]
        print("\n".join(printable(line) for line in lines))
    return EXIT_OK if all(result["whole"] for result in results) else EXIT_PROBLEM


def _verdict(result: dict[str, Any]) -> str:
    if result.get("signed") is False:
        return f"UNSIGNED {result['path']}: {result['problem']}"
    if "problem" in result and result["whole"] is None:
        return f"unknown  {result['path']}: {result['problem']}"
    if result["whole"] is None:
        return f"unknown  {result['path']}: a torch file of the old kind has no checksums: it cannot be verified"
    if not result["whole"]:
        return f"DAMAGED  {result['path']}: {result['record']}: {result['problem']}"
    if result.get("signed"):
        return f"signed   {result['path']}"
    by = "" if result["manifest"] else " (no manifest: checked by the zip's own checksums)"
    return f"whole    {result['path']}{by}"
