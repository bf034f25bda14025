"""What the verbs of the command do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from holdfast.cli.look import Look, look_aside, look_at, look_at_file
from holdfast.cli.text import age, amount, number, table
from holdfast.errors import EXIT_OK, EXIT_PROBLEM, DamagedCheckpointError, NewerFormatError, SignatureError, printable
from holdfast.front.catalogue import has_checksums, is_directory
from holdfast.records import Manifest


def ls(path: str, *, as_json: bool) -> int:
    """List the checkpoints of a directory."""
    looks = look_at(path)
    if as_json:
        _print_json([look.as_dict() for look in looks])
    else:
        rows = [_row(look) for look in looks]
        print(table(("name", "step", "epoch", "score", "size", "age", "saved", "kept because"), rows))
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


def show(path: str, *, as_json: bool) -> int:
    """Print the manifest of one checkpoint."""
    manifest = look_at_file(path)
    if manifest is None:
        message = "it has no manifest: it was not saved by holdfast"
        if as_json:
            _print_json({"path": path, "manifest": None})
        else:
            print(f"{printable(path)}: {message}")
        return EXIT_OK
    if as_json:
        _print_json({"path": path, "manifest": asdict(manifest)})
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


def sign(path: str, *, key: str) -> int:
    """Sign one checkpoint, or all of a directory."""
    from holdfast.front.opening import sign as sign_file  # noqa: PLC0415 - imports torch

    damaged = False
    for item in _files(path):
        try:
            print(f"signed   {printable(item)}: {printable(sign_file(item, key))}")
        except DamagedCheckpointError as error:  # noqa: PERF203 - one bad file must not keep the others from it
            print(f"DAMAGED  {printable(f'{item}: {error.record}: {error.problem}')}: not signed")
            damaged = True
    return EXIT_PROBLEM if damaged else EXIT_OK


def keygen(path: str) -> int:
    """Make a pair of keys."""
    from holdfast.front.opening import keygen as make_keys  # noqa: PLC0415 - imports torch

    print(printable(f"the key {make_keys(path)}: sign with {path}, which is secret; verify with {path}.pub"))
    return EXIT_OK


def _files(path: str) -> list[str]:
    return [look.path for look in look_at(path)] if is_directory(path) else [path]


def verify(path: str, *, as_json: bool, key: str | None = None) -> int:
    """Check one checkpoint, or all of a directory; with a key also who has signed them."""
    from holdfast.front.opening import verify as verify_file  # noqa: PLC0415 - imports torch

    several = is_directory(path)
    results: list[dict[str, Any]] = []
    for item in _files(path):
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
    if as_json:
        _print_json([*results, *({"path": item, "whole": False, "set_aside": True} for item in aside)])
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


def _print_json(value: object) -> None:
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
