"""Into which parts bytes are cut that are sent to an object store, and the bytes of each, from where they lie.

Some servers (R2) want all parts of an object but the last to be equally large, others allow at most 10,000 of them.
So the parts are equal as long as that can be: always where the size is known, and up to 18 GiB where it is not;
from there on they grow, and 10,000 of them would hold 6 TiB: more than an object may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdfast.memory import address_of
from holdfast.storage.remote.objects import Bytes, PartRules

PART = 1 << 24  # bytes: those of an image's blocks, so that none is cut; long enough for its round trip not to count
_ROUND = 1 << 20  # bytes of which every part is a multiple, so that a file is read in whole pages
_MOST_EQUAL = 9000  # parts of what was announced: it may turn out to be more
_STEP = 1200  # parts after which they double, and after as many again, where nothing is known of the size


@dataclass(frozen=True)
class Sizes:
    """The sizes of the parts of one object, by their numbers from 1.

    Attributes:
        first: of the first one, in bytes.
        equal: how many are as large.
        step: after how many more they double, and again.
        most: what none exceeds.

    """

    first: int
    equal: int = _STEP
    step: int = _STEP
    most: int = 5 << 30

    @classmethod
    def of(cls, rules: PartRules, size: int = 0) -> Sizes:
        """Choose them for an object of about this size; 0 where it is not known."""
        needed = -(-size // min(_MOST_EQUAL, rules.count))
        first = min(rules.most, max(PART, rules.least, -(-needed // _ROUND) * _ROUND))
        return cls(first, max(_STEP, -(-size // first) + 1), _STEP, rules.most)

    def __getitem__(self, number: int) -> int:
        """Return the size of a part, but for the last one."""
        beyond = number - 1 - self.equal
        return self.first if beyond < 0 else min(self.most, self.first << (beyond // self.step + 1))


def cut(chunks: Iterable[Bytes], sizes: Sizes) -> Iterator[tuple[Bytes, bool]]:
    """Yield the parts, and of each whether it is the last.

    Nothing is copied but what lies apart and makes one part, and what its owner uses again: memory that is read-only,
    which no one has promised to leave as it is.
    """
    held: list[memoryview] = []
    have, number = 0, 1
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        lent = view.readonly and not isinstance(view.obj, bytes)
        while len(view):
            if have == sizes[number]:  # there is more behind it: it is not the last
                yield _joined(held), False
                held, have, number = [], 0, number + 1
            taken = view[: sizes[number] - have]
            held.append(memoryview(bytes(taken)) if lent else taken)
            have += len(taken)
            view = view[len(taken) :]
    yield _joined(held), True


def _joined(views: list[memoryview]) -> Bytes:
    """Return pieces as one: the memory itself where they lie side by side in it."""
    if len(views) == 1:
        return views[0]
    return _side_by_side(views) or b"".join(views)


def _side_by_side(views: list[memoryview]) -> memoryview | None:
    if not views or any(view.readonly or view.obj is not views[0].obj for view in views):
        return None
    whole = memoryview(views[0].obj)
    if not whole.c_contiguous:
        return None
    start = end = address_of(views[0])
    for view in views:
        if address_of(view) != end:
            return None
        end += len(view)
    whole = whole.cast("B")
    base = address_of(whole)
    return whole[start - base : end - base]
