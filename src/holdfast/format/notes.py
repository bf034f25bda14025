"""One change to what people say of a checkpoint, as bytes: a line of JSON, every byte of which is checked.

``{"crc32":"0a1b2c3d","change":{"holdfast":1,...}}``: the CRC-32 is that of the change's own text. Numbers that
JSON lacks stand as the strings ``nan``, ``inf``, ``-inf``. Keys that are not known here are a later version's, and
are passed over; a later format is not read at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from holdfast.format.digest import crc32
from holdfast.format.manifest import STRICT, plain
from holdfast.records import Change

NOTES_FORMAT = 1
LONGEST_CHANGE = 1 << 20  # bytes: a longer file is none of ours
LONGEST_NAME = 200  # characters of a tag, and of a metric's name
LONGEST_NOTE = 1 << 16  # characters

_HEAD, _MIDDLE, _TAIL = b'{"crc32":"', b'","change":', b"}\n"
_DIGITS = 8
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError)


class NoteError(ValueError):
    """The bytes are no change, or not the one that was written; or a value cannot stand in one."""


def encode_change(change: Change) -> bytes:
    """Return the bytes of a change.

    Raises:
        NoteError: if a reader would not take it.

    """
    check(change)
    said = {key: plain(value) for key, value in asdict(change).items() if value not in (None, "", (), {})}
    text = json.dumps({"holdfast": NOTES_FORMAT, **said}, allow_nan=False, separators=(",", ":")).encode()
    data = _HEAD + f"{crc32(text):08x}".encode() + _MIDDLE + text + _TAIL
    if len(data) > LONGEST_CHANGE:
        msg = f"it would take {len(data)} bytes: at most {LONGEST_CHANGE} are read"
        raise NoteError(msg)
    return data


def decode_change(data: bytes) -> Change:
    """Read a change.

    Raises:
        NoteError: if any byte of it is not as it was written, or a later holdfast wrote it.

    """
    start = len(_HEAD) + _DIGITS + len(_MIDDLE)
    digest, text = data[len(_HEAD) : len(_HEAD) + _DIGITS], data[start : -len(_TAIL)]
    if len(data) > LONGEST_CHANGE or data != _HEAD + digest + _MIDDLE + text + _TAIL:
        msg = "it does not have the form of a change"
        raise NoteError(msg)
    if digest != f"{crc32(text):08x}".encode():
        msg = "its checksum does not match"
        raise NoteError(msg)
    try:
        return _change(STRICT.decode(text.decode()))
    except NoteError:
        raise
    except _MALFORMED as error:
        msg = f"its content does not have the form of a change: {error!r:.200}"
        raise NoteError(msg) from error


def _change(said: Any) -> Change:
    version = said["holdfast"]
    if type(version) is not int or version > NOTES_FORMAT:
        msg = f"it is of format {version!r:.20}, and this holdfast reads {NOTES_FORMAT}: install a newer one"
        raise NoteError(msg)
    pin = said.get("pin")
    if not isinstance(pin, (bool, type(None))):
        msg = "its pin is neither true nor false"
        raise NoteError(msg)
    change = Change(
        pin=pin,
        tag=tuple(_list(said.get("tag", []))),
        untag=tuple(_list(said.get("untag", []))),
        note=said.get("note", ""),
        metrics={name: _number(value) for name, value in said.get("metrics", {}).items()},
        time=said.get("time", ""),
    )
    check(change)
    return change


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        msg = "its tags are no list"
        raise NoteError(msg)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and value not in ("nan", "inf", "-inf")):
        msg = "a metric is no number"
        raise NoteError(msg)
    return float(value)


def check(change: Change) -> None:
    """Check that every value of a change is of its type, and no longer than is read.

    Raises:
        NoteError: naming the first that is not.

    """
    for tag in (*change.tag, *change.untag):
        check_tag(tag)
    for name in change.metrics:
        _check_text(name, "the name of a metric", LONGEST_NAME)
    for text, what, most in ((change.note, "a note", LONGEST_NOTE), (change.time, "a time", LONGEST_NAME)):
        if text != "":
            _check_text(text, what, most)


def check_tag(tag: Any) -> None:
    """Check that a value can be a tag: it is seen, one can type it, and it is not too long.

    Raises:
        NoteError: if it cannot.

    """
    _check_text(tag, "a tag", LONGEST_NAME)
    if not tag.isprintable() or tag != tag.strip() or "," in tag:
        msg = f"a tag is printable text without commas and without spaces around it, but got {tag!r}"
        raise NoteError(msg)


def _check_text(text: Any, what: str, most: int) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= most:
        msg = f"{what} is text of 1 to {most} characters, but got {text!r:.80}"
        raise NoteError(msg)
    try:
        text.encode()
    except UnicodeEncodeError:
        msg = f"{what} has half of a character in it: {text!r:.80}"
        raise NoteError(msg) from None
