"""A skeleton that is pickled once: what changes from save to save are a few numbers, which are written over.

Pickling a few hundred tensors takes milliseconds, and training stands still for them. A look at the
state takes a fraction: if everything that decides about the pickle is as it was (containers, keys,
texts, the tensors' dtypes, shapes and sharing), the old bytes hold but for the numbers, whose places
in them are known. Where anything else is in the state there is no template, and all is pickled.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass, field
from typing import Any

import torch

from holdfast.records import TensorInfo
from holdfast.snapshot.walk import Walk, numbers_in_order

_KEPT = 4  # states of different shape that take turns
_FIXED = dict.fromkeys(b"}])(tusaeRbNQ.\x85\x86\x87\x88\x89", 0) | {
    ord(code): length for code, length in (("\x80", 1), ("K", 1), ("M", 2), ("J", 4), ("G", 8))
}
_FIXED |= {ord(code): length for code, length in (("q", 1), ("r", 4), ("h", 1), ("j", 4))}
_NUMBERS = frozenset(b"KMJG\x8a")
_TEXT, _LONG, _GLOBAL = ord("X"), 0x8A, ord("c")


@dataclass(frozen=True)
class Template:
    """The skeleton of a state, and of all states that differ from it in numbers alone.

    Attributes:
        trace: what these states have in common.
        skeleton: their pickle.
        numbers: the numbers in it.
        slots: where each of them stands: offset and length, the opcode included.
        names: of each name of a tensor, the tensor's place in the look.
        infos: what the manifest says of the tensors, once it was asked for: their kinds, shapes and places are
            in the trace.

    """

    trace: list[Any]
    skeleton: bytes
    numbers: list[int | float]
    slots: list[tuple[int, int]]
    names: list[tuple[str, int]]
    infos: list[tuple[TensorInfo, ...]] = field(default_factory=list, compare=False)

    def fill(self, numbers: list[int | float]) -> bytes | None:
        """Return the skeleton with these numbers; None if one of them needs more bytes, or fewer."""
        filled: bytearray | None = None
        for new, old, (offset, length) in zip(numbers, self.numbers, self.slots, strict=True):
            if new is old:
                continue
            code = _encode(new)
            if len(code) != length or code[0] != self.skeleton[offset]:
                return None
            if filled is None:
                filled = bytearray(self.skeleton)
            filled[offset : offset + length] = code
        return self.skeleton if filled is None else bytes(filled)


class Templates:
    """The templates of the last few shapes of state."""

    def __init__(self) -> None:
        """Know none yet."""
        self._known: list[Template] = []
        self._last: list[Any] | None = None

    def find(self, walk: Walk) -> tuple[Template, bytes] | None:
        """Return the template that fits, and its skeleton with the state's numbers."""
        for template in self._known:
            if template.trace == walk.trace:
                skeleton = template.fill(walk.numbers)
                return None if skeleton is None else (template, skeleton)
        return None

    def learn(self, state: object, walk: Walk, skeleton: bytes, named: list[tuple[str, torch.Tensor]]) -> None:
        """Make a template of a pickled state, if a state of its shape has been seen right before."""
        again, self._last = self._last == walk.trace, walk.trace
        slots = _slots(state, walk, skeleton) if again else None  # no deeper than the look itself went
        if slots is None:
            return
        order = {id(tensor): number for number, tensor in enumerate(walk.tensors)}
        names = [(name, order[id(tensor)]) for name, tensor in named]
        others = [template for template in self._known if template.trace != walk.trace]
        self._known = [Template(walk.trace, skeleton, walk.numbers, slots, names), *others][:_KEPT]


def _slots(state: object, walk: Walk, skeleton: bytes) -> list[tuple[int, int]] | None:
    """Find the state's own numbers in its pickle; None if that is not certain."""
    found = _numbers_of(skeleton)
    own = list(numbers_in_order(state, set()))
    if found is None or len(found) != len(own):
        return None
    slots = [slot for slot, mine in zip(found, own, strict=True) if mine]
    codes = [_encode(number) for number in walk.numbers]
    certain = codes == [skeleton[offset : offset + length] for offset, length in slots]
    return slots if certain else None


def _numbers_of(skeleton: bytes) -> list[tuple[int, int]] | None:
    """Find all numbers in a pickle of protocol 2; None at an opcode that is not expected."""
    found = []
    at = 0
    while at < len(skeleton):
        code = skeleton[at]
        if code in _FIXED:
            length = 1 + _FIXED[code]
        elif code == _TEXT:
            length = 5 + struct.unpack_from("<I", skeleton, at + 1)[0]
        elif code == _LONG:
            length = 2 + skeleton[at + 1]
        elif code == _GLOBAL:
            length = skeleton.index(b"\n", skeleton.index(b"\n", at) + 1) + 1 - at
        else:
            return None
        if code in _NUMBERS:
            found.append((at, length))
        at += length
    return found


def _encode(number: float) -> bytes:
    """Return a number as the pickle has it: with the smallest opcode of protocol 2 that holds it."""
    if isinstance(number, float):
        return b"G" + struct.pack(">d", number)
    for code, form, low, high in ((b"K", "<B", 0, 1 << 8), (b"M", "<H", 0, 1 << 16), (b"J", "<i", -1 << 31, 1 << 31)):
        if low <= number < high:
            return code + struct.pack(form, number)
    data = pickle.encode_long(number)
    return b"\x8a" + bytes([len(data)]) + data if len(data) < 256 else b""  # noqa: PLR2004 - one byte
