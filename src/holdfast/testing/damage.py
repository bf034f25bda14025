"""Damages of a file, from a bit to a block: for a test that a reader refuses them all.

>>> from holdfast.testing.damage import damages, survey

A damage is a value: it says what it does, and ``apply`` does it to the bytes of a file. ``damages`` yields them
for every region of a checkpoint; ``survey`` tries a reader on them and counts what came of it. The reader may be
anybody's, and the file too: one that is no zip of torch's form is damaged as one region.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast.testing.zip_regions import DATA, Region, regions

__all__ = [
    "Damage",
    "Region",
    "Survey",
    "damages",
    "duplicated",
    "every_bit",
    "extended",
    "flips",
    "regions",
    "shifted",
    "survey",
    "swapped",
    "truncated",
    "zeroed",
]

_BLOCKS = (512, 4096)
_SWEEP = 4096
_SEED = 20260801


@dataclass(frozen=True)
class Damage:
    """Something that happens to a file.

    Attributes:
        kind: ``flipped``, ``truncated``, ``zeroed``, ``extended``, ``swapped``, ``duplicated`` or ``shifted``.
        what: the same in more words, for the message of a test that fails.
        begin: the first byte that is replaced.
        end: the byte behind the last.
        new: what stands there afterwards, of any length.
        region: the region that is damaged; None where it is more than one, or the file's length.

    """

    kind: str
    what: str
    begin: int
    end: int
    new: bytes
    region: Region | None = None

    def apply(self, data: bytes) -> bytes:
        """Return the damaged bytes of the file for which this damage was made."""
        return data[: self.begin] + self.new + data[self.end :]

    def harms(self, data: bytes) -> bool:
        """Tell whether anything changes: zeros over zeros are no damage."""
        return data[self.begin : self.end] != self.new


def every_bit(data: bytes) -> Iterator[Damage]:
    """Yield each bit of a file turned over: eight damages a byte."""
    for region in regions(data):
        for at in range(region.begin, region.end):
            yield from (_flip(data, at, bit, region) for bit in range(8))


def flips(data: bytes, every: int = _SWEEP) -> Iterator[Damage]:
    """Yield one bit turned over in each block of ``every`` bytes, and in both ends of each region."""
    dice = random.Random(_SEED)  # noqa: S311 - the same on every run
    for region in regions(data):
        places = {region.begin, region.end - 1}
        places |= {dice.randrange(at, min(at + every, region.end)) for at in range(region.begin, region.end, every)}
        yield from (_flip(data, at, dice.randrange(8), region) for at in sorted(places))


def _flip(data: bytes, at: int, bit: int, region: Region) -> Damage:
    return Damage("flipped", f"bit {bit} of byte {at} ({region})", at, at + 1, bytes([data[at] ^ (1 << bit)]), region)


def truncated(data: bytes, lengths: int = 100) -> Iterator[Damage]:
    """Yield the file cut off around each boundary of regions, everywhere in its end, and at other lengths."""
    dice = random.Random(_SEED)  # noqa: S311 - the same on every run
    at = {0, 1, *range(max(0, len(data) - 130), len(data))}
    for region in regions(data):
        at |= {region.begin - 1, region.begin, region.begin + 1}
    at |= {dice.randrange(len(data)) for _ in range(lengths)}
    for length in sorted(at):
        if 0 <= length < len(data):
            yield Damage("truncated", f"to {length} of {len(data)} bytes", length, len(data), b"")


def zeroed(data: bytes) -> Iterator[Damage]:
    """Yield each region, each block of a disk and the whole file as zeros."""
    for region in regions(data):
        yield Damage("zeroed", str(region), region.begin, region.end, bytes(region.size), region)
    for size in (*_BLOCKS, max(1, len(data))):
        for at in range(0, len(data), size):
            end = min(at + size, len(data))
            yield Damage("zeroed", f"bytes {at} to {end}", at, end, bytes(end - at))


def extended(data: bytes) -> Iterator[Damage]:
    """Yield the file with something behind it, or before it: zeros, noise, a line, its own end, itself."""
    dice = random.Random(_SEED)  # noqa: S311 - the same on every run
    more = {"a zero": b"\0", "zeros": bytes(4096), "noise": dice.randbytes(1000), "a line": b"\n", "itself": data}
    more |= {"its end": data[-98:], "an empty zip": b"PK\5\6" + bytes(18)}
    for name, piece in more.items():
        yield Damage("extended", f"by {name}, behind", len(data), len(data), piece)
        yield Damage("extended", f"by {name}, before", 0, 0, piece)


def swapped(data: bytes, other: bytes) -> Iterator[Damage]:
    """Yield the file with each region in turn taken from another checkpoint, and halves of both joined.

    Regions of other sizes too: then everything behind moves. A file that is the other one in the end is left out.
    """
    theirs = {(region.record, region.part): region for region in regions(other)}
    for region in regions(data):
        twin = theirs.get((region.record, region.part))
        if twin is not None:
            piece = other[twin.begin : twin.end]
            damage = Damage("swapped", f"{region} of another", region.begin, region.end, piece, region)
            if damage.apply(data) != other:
                yield damage
    for region in regions(data):
        if other[: region.begin] != data[: region.begin] and other[region.begin :] != data[region.begin :]:
            yield Damage("swapped", f"all before the {region}", 0, region.begin, other[: region.begin])
    yield from _swapped_records(data)


def _swapped_records(data: bytes) -> Iterator[Damage]:
    """Yield records of one size in each other's place."""
    records = [region for region in regions(data) if region.part == DATA]
    for one, other in itertools.pairwise(records):
        if one.size == other.size:
            piece = data[other.begin : other.end] + data[one.end : other.begin] + data[one.begin : one.end]
            yield Damage("swapped", f"the {one} and the {other}", one.begin, other.end, piece)


def duplicated(data: bytes) -> Iterator[Damage]:
    """Yield each region twice in a row, and each block over the one behind it."""
    for region in regions(data):
        piece = data[region.begin : region.end]
        yield Damage("duplicated", str(region), region.end, region.end, piece)
    for at in range(0, len(data) - _SWEEP, _SWEEP):
        end = min(at + 2 * _SWEEP, len(data))
        piece = data[at : at + _SWEEP][: end - at - _SWEEP]
        yield Damage("duplicated", f"the block at {at} over the next", at + _SWEEP, end, piece)


def shifted(data: bytes) -> Iterator[Damage]:
    """Yield bytes lost from the beginning of each region, and bytes too many there: all behind it moves."""
    for region in regions(data):
        for count in {1, 64, region.size}:
            end = min(region.begin + count, region.end)
            yield Damage("shifted", f"{end - region.begin} bytes lost of the {region}", region.begin, end, b"")
            yield Damage("shifted", f"{count} zeros into the {region}", region.begin, region.begin, bytes(count))


def damages(data: bytes, other: bytes | None = None, *, every: int = _SWEEP) -> Iterator[Damage]:
    """Yield damages of every kind; each of them changes the file.

    Args:
        data: the bytes of a whole file.
        other: those of another checkpoint, best of the same layout; None leaves ``swapped`` out.
        every: as of ``flips``: 1 for a bit of every byte.

    """
    makers: list[Iterable[Damage]] = [flips(data, every), truncated(data), zeroed(data), extended(data)]
    makers += [swapped(data, other)] if other is not None else []
    for maker in (*makers, duplicated(data), shifted(data)):
        yield from (damage for damage in maker if damage.harms(data) and damage.apply(data) != other)


@dataclass
class Survey:
    """What became of a file's damages in the hands of a reader.

    Attributes:
        tried: how many there were.
        refused: how many were refused, by the name of the exception.
        harmless: how many were read, and gave what the whole file gives.
        silent: those that were read, and gave something else.

    """

    tried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    harmless: int = 0
    silent: list[Damage] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the counts in a line."""
        kinds = ", ".join(f"{count} {name}" for name, count in self.refused.most_common())
        return (
            f"{self.tried} damages: {self.refused.total()} refused ({kinds}), {self.harmless} read without harm, "
            f"{len(self.silent)} read wrong"
        )


def survey(
    data: bytes,
    path: str | os.PathLike[str],
    read: Callable[[str], Any],
    these: Iterable[Damage],
    same: Callable[[Any, Any], bool],
) -> Survey:
    """Have a reader read each damaged file, and count.

    Args:
        data: the bytes of the whole file.
        path: where to write the damaged ones, one after the other; what is there is lost.
        read: takes the path; an exception of any class means that it refuses.
        these: the damages.
        same: tells whether what was read of a damaged file is what was read of the whole one.

    A reader that hangs or ends the process hangs or ends this: try those in a child.

    """
    counts, name = Survey(), os.fspath(path)
    _put(name, data)
    whole = read(name)
    for damage in these:
        _put(name, damage.apply(data))
        counts.tried += 1
        try:
            found = read(name)
        except Exception as error:  # noqa: BLE001 - what it is, is counted
            counts.refused[type(error).__name__] += 1
            continue
        if same(whole, found):
            counts.harmless += 1
        else:
            counts.silent.append(damage)
    return counts


def _put(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
