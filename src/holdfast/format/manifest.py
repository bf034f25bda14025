"""The manifest as bytes: three lines, each a CRC-32 in hexadecimal, a space, and a JSON value.

The first line holds the facts, so that a listing can read it without the rest; the second the
records, the third the tensors. Numbers that JSON lacks stand as the strings ``nan``, ``inf``, ``-inf``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from holdfast.format.digest import crc32
from holdfast.records import FORMAT_VERSION, Facts, Lineage, Manifest, Record, TensorInfo

MANIFEST_NAME = "holdfast/manifest"

_LARGEST = 2**62  # bytes: no file offset is larger; and no count of steps
_CRC = 2**32 - 1
_LEVELS = 8  # of a value inside another, in a part whose form later versions may extend
LONGEST = 2**28  # bytes of a manifest, those of two million tensors: a file full of holes may claim any number
_LONGEST_NAME = 2**15  # bytes of a record's name; the zip has 16 bits for it and the archive's prefix
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError)
_TEXT_OR_NONE = (str, type(None))
_FORMS: Mapping[str, Any] = {
    "step": int,
    "epoch": int,
    "sequence": int,
    "time": str,
    "metrics": dict,
    "reason": str,
    "kind": str,
    "weights_only": bool,
    "run": str,
    "owner": str,
    "names": dict,
    "policy": dict,
    "resumed_from": (dict, type(None)),
    "sources": list,
    "git_commit": _TEXT_OR_NONE,
    "versions": dict,
    "ranks": int,
}
_USUAL = (("sources", ()), ("ranks", 1))  # what need not be said
_POLICY: Mapping[str, Any] = {
    "monitor": _TEXT_OR_NONE,
    "mode": str,
    "save_top_k": int,
    "keep": _TEXT_OR_NONE,
    "save_when": _TEXT_OR_NONE,
    "saved_best": dict,
    "since": int,
}

_newest: tuple[tuple[TensorInfo, ...] | None, bytes] = (None, b"")


class ManifestError(ValueError):
    """The bytes are no manifest, or not the one that was written."""


class NewerManifestError(ManifestError):
    """The manifest is whole, and of a format that is not known here."""


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's bytes.

    Raises:
        ManifestError: if they would be more than a reader takes.

    """
    facts = {key: plain(value) for key, value in asdict(manifest.facts).items() if (key, value) not in _USUAL}
    lines = (
        {"holdfast": manifest.format, **facts},
        [[record.name, record.size, f"{record.crc32:08x}"] for record in manifest.records],
    )
    data = b"".join((*map(_line, lines), _tensor_line(manifest.tensors)))
    if len(data) > LONGEST:
        msg = (
            f"the manifest of {len(manifest.tensors)} tensors would take {len(data)} bytes: at most {LONGEST} are read"
        )
        raise ManifestError(msg)
    return data


def _tensor_line(tensors: tuple[TensorInfo, ...]) -> bytes:
    """Return the third line; that of the tensors asked for before is known still, as most saves ask for the same."""
    global _newest  # noqa: PLW0603 - one assignment, whole for every thread
    known, line = _newest
    if known is not tensors:
        line = _line([[item.name, item.dtype, list(item.shape), item.record] for item in tensors])
        _newest = (tensors, line)
    return line


def decode(data: bytes) -> Manifest:
    """Read a whole manifest.

    Raises:
        ManifestError: if any byte of it is not as it was written.

    """
    lines = data.split(b"\n")
    if len(lines) != len(("facts", "records", "tensors", "the end")) or lines[-1]:
        msg = "it does not have three lines"
        raise ManifestError(msg)
    head, records, tensors = (_value(line) for line in lines[:3])
    try:
        return Manifest(
            facts=_facts(head),
            records=tuple(_record(*record) for record in _are(list, records)),
            tensors=tuple(_tensor(*tensor) for tensor in _are(list, tensors)),
            format=head["holdfast"],
        )
    except ManifestError:
        raise
    except _MALFORMED as error:
        msg = f"its content does not have the form of a manifest: {error!r}"
        raise ManifestError(msg) from error


def decode_facts(data: bytes) -> Facts:
    """Read the facts from the beginning of a manifest; the rest need not be there.

    Raises:
        ManifestError: if the first line is not whole.

    """
    line, newline, _ = data.partition(b"\n")
    if not newline:
        msg = "its first line is cut off"
        raise ManifestError(msg)
    try:
        return _facts(_value(line))
    except ManifestError:
        raise
    except _MALFORMED as error:
        msg = f"its first line does not have the form of a manifest: {error}"
        raise ManifestError(msg) from error


def decode_records(line: bytes) -> tuple[Record, ...]:
    """Read the records from the second line of a manifest, without its end.

    Raises:
        ManifestError: if it is not as it was written.

    """
    try:
        return tuple(_record(*record) for record in _are(list, _value(line)))
    except ManifestError:
        raise
    except _MALFORMED as error:
        msg = f"its second line does not have the form of a manifest: {error}"
        raise ManifestError(msg) from error


def _facts(head: Any) -> Facts:
    if head["holdfast"] > FORMAT_VERSION:
        msg = f"format {head['holdfast']} is newer than this holdfast reads ({FORMAT_VERSION})"
        raise NewerManifestError(msg)
    values = {key: value for key, value in head.items() if key in _FORMS}
    for key, value in values.items():
        _is(_FORMS[key], value)
    for key in ("step", "epoch", "sequence"):
        _count(values[key])
    _count(values.get("ranks", 1))
    values["metrics"] = {key: float(value) for key, value in values.get("metrics", {}).items()}
    for key in ("names", "versions"):
        _are(str, list(values.get(key, {}).values()))
    for key, value in values.get("policy", {}).items():
        _flat(_is(_POLICY.get(key, object), value))
    if values.get("resumed_from") is not None:
        values["resumed_from"] = _lineage(**values["resumed_from"])
    values["sources"] = tuple(_lineage(**source) for source in _are(dict, values.get("sources", [])))
    return Facts(**values)


def _lineage(path: Any, step: Any = None, run: Any = None, **later: Any) -> Lineage:
    del later  # what a newer holdfast may say besides
    return Lineage(_is(str, path), None if step is None else _count(step), _is((str, type(None)), run))


def _record(name: Any, size: Any, crc: Any) -> Record:
    record = Record(_is(str, name), _is(int, size), int(_is(str, crc), 16))
    if not (0 <= record.size <= _LARGEST and 0 <= record.crc32 <= _CRC and len(name.encode()) <= _LONGEST_NAME):
        msg = f"a record of {size} bytes with the CRC-32 {crc!r} cannot be"
        raise ManifestError(msg)
    return record


def _tensor(name: Any, dtype: Any, shape: Any, record: Any) -> TensorInfo:
    sizes = tuple(map(_count, _is(list, shape)))
    return TensorInfo(_is(str, name), _is(str, dtype), sizes, _is(str, record))


def _is(kind: Any, value: Any) -> Any:
    """Return the value if it is of this type; a truth value is no number."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        msg = f"{value!r:.80} stands where it cannot"
        raise ManifestError(msg)
    return value


def _flat(value: Any, levels: int = _LEVELS) -> None:
    """Check that a value is nested no deeper than whoever copies or prints it can go."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not levels and inner:
        msg = "it is nested too deep"
        raise ManifestError(msg)
    for item in inner:
        _flat(item, levels - 1)


def _count(value: Any) -> int:
    """Return a number of steps, epochs or elements: one that can be counted up without end would grow without end."""
    number: int = _is(int, value)
    if abs(number) > _LARGEST:
        msg = "a number is larger than anything that is counted"
        raise ManifestError(msg)
    return number


def _are(kind: Any, values: Any) -> list[Any]:
    return [_is(kind, value) for value in _is(list, values)]


def plain(value: Any) -> Any:
    """Return a value with the names of the numbers that JSON lacks in their places."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def _line(value: Any) -> bytes:
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return f"{crc32(text):08x} ".encode() + text + b"\n"


def _value(line: bytes) -> Any:
    digest, _, text = line.partition(b" ")
    if digest != f"{crc32(text):08x}".encode():
        msg = "its checksum does not match"
        raise ManifestError(msg)
    try:
        return STRICT.decode(text.decode())
    except (ValueError, RecursionError) as error:
        msg = f"it is no JSON: {error}"
        raise ManifestError(msg) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object in which no key stands twice: of two values, each reader could believe another."""
    value = dict(pairs)
    if len(value) < len(pairs):
        msg = "a key stands twice"
        raise ValueError(msg)
    return value


def _no_number(name: str) -> Any:
    msg = f"{name} is no number"
    raise ValueError(msg)


# The reader of all our JSON: what each reader could take for something else is refused.
STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
