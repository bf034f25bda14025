"""The bytes of what ranks say to each other: how long a message is, whose call it is, and where the caller is."""

from __future__ import annotations

import struct
from typing import Final

UP: Final = 512  # bytes of the first message of a round, from each rank
DOWN: Final = 4096  # bytes of the first message of the answer

_HEAD = struct.Struct("<QBHQ")  # up: number of the call, kind, bytes of where, bytes told
_ANSWER = struct.Struct("<BQ")  # down: how it is meant, bytes
_AT = 200  # bytes of where a rank is that are compared
_KINDS = ("agree", "exchange", "gather", "together", "highest")

ROOM: Final = DOWN - _ANSWER.size  # bytes that an answer in one message may have


def said(number: int, kind: str, at: str, told: bytes) -> bytes:
    """Return what a rank says at the beginning of a call."""
    where = at.encode()[:_AT]
    return _HEAD.pack(number, _KINDS.index(kind), len(where), len(told)) + where + told


def framed(data: bytes, length: int) -> bytes:
    """Return a message of this length, whatever there is to say."""
    return data[:length].ljust(length, b"\0")


def length_of(frame: bytes) -> int:
    """Return how long the whole message is of which this is the beginning."""
    _, _, where, told = _HEAD.unpack_from(frame)
    return _HEAD.size + int(where) + int(told)


def told_in(frame: bytes) -> bytes:
    """Return what the rank tells, in a message that is whole."""
    _, _, where, length = _HEAD.unpack_from(frame)
    return frame[_HEAD.size + where : _HEAD.size + where + length]


def place_of(frame: bytes) -> tuple[int, int, bytes]:
    """Return which call it is, of which kind, and where: equal for ranks that do the same.

    What of "where" follows a bracket is told, not compared: ranks with uneven data may be at different steps.
    """
    number, kind, _, _ = _HEAD.unpack_from(frame)
    return number, kind, _where(frame).partition(b" (")[0]


def words_of(frame: bytes) -> str:
    """Return that for people."""
    number, kind, _, _ = _HEAD.unpack_from(frame)
    return f"{_where(frame).decode(errors='replace') or '?'} (its call {number}, {_KINDS[kind]})"


def _where(frame: bytes) -> bytes:
    _, _, where, _ = _HEAD.unpack_from(frame)
    return frame[_HEAD.size : _HEAD.size + where]


def answered(how: int, data: bytes) -> bytes:
    """Return the first message of an answer; the data follows by itself where it is longer than ``ROOM``."""
    return framed(_ANSWER.pack(how, len(data)) + data[:ROOM], DOWN)


def answer_in(frame: bytes) -> tuple[int, int, bytes]:
    """Return how an answer is meant, how long it is, and its beginning."""
    how, length = _ANSWER.unpack_from(frame)
    return how, length, frame[_ANSWER.size : _ANSWER.size + min(length, ROOM)]
