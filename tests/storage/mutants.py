"""Stores with one bug each, of the kinds that real ones have had; each is the good one but for that."""

from __future__ import annotations

import posixpath
import threading
from contextlib import nullcontext

from tests.storage.store_in_memory import StoreInMemory


class ShowsHalfAPut(StoreInMemory):
    """Writes under the name itself."""

    def put(self, name, chunks, *, over="", gate=None, size=0):
        super().put(name, [])
        for chunk in chunks:
            super().put(name, [self.read(name, 0, 1 << 30), chunk])
        if gate is not None:
            gate()
        return self.size(name)


class ReplacesInTwoSteps(StoreInMemory):
    """Removes what had the name before the bytes are there."""

    def put(self, name, chunks, **how):
        self.remove(name)
        return super().put(name, chunks, **how)


class LeavesHalfAPut(StoreInMemory):
    """Cleans up after itself, but not if something fails."""

    def put(self, name, chunks, **how):
        data = []
        try:
            for chunk in chunks:
                data += [bytes(chunk)]
        except BaseException:
            super().put(name, data)
            raise
        return super().put(name, data, **how)


class SwallowsAnError(StoreInMemory):
    """Says that it has written what it has not."""

    def put(self, name, chunks, **how):
        try:
            return super().put(name, chunks, **how)
        except OSError:
            return 0


class LeavesRubbish(StoreInMemory):
    """A failed write leaves its temporary name, which no listing shows."""

    def put(self, name, chunks, **how):
        try:
            return super().put(name, chunks, **how)
        except BaseException:
            super().put(".holdfast-rubbish/x", [b"half"])
            raise


class TakesAllChunksFirst(StoreInMemory):
    """Asks for all chunks before it looks at one of them."""

    def put(self, name, chunks, **how):
        return super().put(name, list(chunks), **how)


class CutsALargePut(StoreInMemory):
    """Takes no more than a request may have."""

    def put(self, name, chunks, **how):
        return super().put(name, [b"".join(chunks)[: 8 << 20]], **how)


class KeepsTheMemory(StoreInMemory):
    """Keeps the caller's memory, which is written anew after the put."""

    def put(self, name, chunks, **how):
        kept = list(chunks)
        count = super().put(name, kept, **how)
        if len(kept) == 1:
            self.all[name] = (memoryview(kept[0]), self.all[name][1])
        return count

    def read(self, name, offset, length):
        return bytes(super().read(name, offset, length))


class CountsInItems(StoreInMemory):
    """Takes the length of a view for its bytes."""

    def put(self, name, chunks, **how):
        chunks = list(chunks)
        super().put(name, chunks, **how)
        return sum(map(len, chunks))


class MixesWriters(StoreInMemory):
    """Has one temporary name for all writers."""

    _temporary: bytearray = bytearray()

    def put(self, name, chunks, **how):
        for chunk in chunks:
            type(self)._temporary += chunk
            threading.Event().wait(0.001)  # where another thread gets its turn
        data = bytes(self._temporary)
        type(self)._temporary = bytearray()
        return super().put(name, [data], **how)


class AsksTheGateFirst(StoreInMemory):
    """Asks before the bytes are there."""

    def put(self, name, chunks, *, over="", gate=None, size=0):
        if gate is not None:
            gate()
        return super().put(name, chunks)


class AsksTheGateTooLate(StoreInMemory):
    """Asks when the blob is there already, and takes it away again."""

    def put(self, name, chunks, *, over="", gate=None, size=0):
        count = super().put(name, chunks)
        try:
            if gate is not None:
                gate()
        except BaseException:
            self.remove(name)
            raise
        return count


class ForgetsTheGate(StoreInMemory):
    """Does not ask."""

    def put(self, name, chunks, *, over="", gate=None, size=0):
        return super().put(name, chunks)


class RemovesAPrefix(StoreInMemory):
    """Removes as object stores' clients do, recursively by prefix."""

    def remove(self, name):
        for found in [found for found in self.all if found.startswith(name.rpartition("/")[0] or name)]:
            del self.all[found]


class RemovesNothing(StoreInMemory):
    """Says that it has removed."""

    def remove(self, name):
        pass


class MindsRemovingTwice(StoreInMemory):
    """Raises for what is gone already."""

    def remove(self, name):
        self.get(name)
        super().remove(name)


class RetiresNothing(StoreInMemory):
    """Keeps the name of what it retires."""

    def retire(self, name):
        return ""


class WritesOverWhatLives(StoreInMemory):
    """Takes any name for the space of a retired blob."""

    def put(self, name, chunks, *, over="", **how):
        if over:
            self.remove(over)
        return super().put(name, chunks, **how)


class LinksByReference(StoreInMemory):
    """A second name is a pointer to the first."""

    def __init__(self, root):
        super().__init__(root)
        self._links = {}

    def link(self, source, target):
        self._links[target] = source
        return super().link(source, target)

    def read(self, name, offset, length):
        return super().read(self._links.get(name, name), offset, length)


class LinksHalf(StoreInMemory):
    """Copies what one request takes."""

    def link(self, source, target):
        self.all[target] = (self.get(source)[0][:2], self.all[source][1] + 1)
        return "copy"


class LinksNothing(StoreInMemory):
    """A link to what is not there takes what is."""

    def link(self, source, target):
        self.remove(target)
        return super().link(source, target)


class MovesOverOthers(StoreInMemory):
    """Moves as rename does."""

    def move(self, name, target):
        self.all[target] = self.all.pop(name)
        return True


class MovesByHalves(StoreInMemory):
    """Copies, and leaves the first name."""

    def move(self, name, target):
        if target in self.all:
            raise FileExistsError
        return bool(self.link(name, target))


class HoldsAsOne(StoreInMemory):
    """Says that what is not there is held."""

    def hold(self, name, *, alone=False):
        return nullcontext(True)


class LosesTheWay(StoreInMemory):
    """Takes every path that begins alike for its own."""

    def name_of(self, path):
        return path.removeprefix(self.root).lstrip("/") if path.startswith(self.root) else None


class CannotBeReopened(StoreInMemory):
    """Has its blobs in itself: another process sees none."""

    @property
    def all(self):
        return vars(self).setdefault("_all", {})


class SweepsWhatIsCommitted(StoreInMemory):
    """Takes every blob that it has not listed lately for one that died."""

    def sweep(self, depth=0):
        names = [blob.name for blob in self.blobs(depth) if blob.size < 9]
        for name in names:
            self.remove(name)
        return names


class CallsItALeftover(StoreInMemory):
    """Says of what is committed that it is not."""

    def leftovers(self, depth=0):
        return [blob.name for blob in self.blobs(depth)]


class ChangesNames(StoreInMemory):
    """Changes letters that it does not like."""

    def put(self, name, chunks, **how):
        return super().put(name.replace("=", "_"), chunks, **how)


class FollowsDots(StoreInMemory):
    """Lets a name lead out of its folder, as paths and URLs do."""

    def put(self, name, chunks, **how):
        return super().put(posixpath.normpath(name), chunks, **how)

    def read(self, name, offset, length):
        return super().read(posixpath.normpath(name), offset, length)


MUTANTS = [kind for kind in list(globals().values()) if isinstance(kind, type) and kind.__base__ is StoreInMemory]
