"""Stores with one bug each, of the kinds that real ones have had; each is the good one but for that."""

from __future__ import annotations

import os
import posixpath
import shutil
import threading
from contextlib import nullcontext

from holdfast.storage import SEAL, Blob
from holdfast.storage.local import LocalStore
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


class ReadsShort(StoreInMemory):
    """Gives what the first request brought."""

    def read(self, name, offset, length):
        return super().read(name, offset, min(length, 1 << 17))


class ReadsLongRangesInDisorder(StoreInMemory):
    """Has its parallel requests' answers in the order in which they came."""

    def read_into(self, name, offset, view):
        count, half = super().read_into(name, offset, view), 4 << 20
        if count > 2 * half:
            view[:half], view[half : 2 * half] = bytes(view[half : 2 * half]), bytes(view[:half])
        return count


class ReadsTheWrongRange(StoreInMemory):
    """Takes the range's end, as HTTP does, for one behind it."""

    def read_into(self, name, offset, view):
        return super().read_into(name, offset, view[:-1])


class IgnoresTheOffset(StoreInMemory):
    """Reads into memory from the beginning."""

    def read_into(self, name, offset, view):
        return super().read_into(name, 0, view)


class WritesBehindTheRange(StoreInMemory):
    """Fills the rest of the memory with zeros."""

    def read_into(self, name, offset, view):
        count = super().read_into(name, offset, view)
        view[count:] = bytes(len(view) - count)
        return count


class ReadsNothingAsEmpty(StoreInMemory):
    """Takes what is not there for an empty blob."""

    def read(self, name, offset, length):
        return super().read(name, offset, length) if self.exists(name) else b""


class SharesAPosition(StoreInMemory):
    """Threads move one position in one open file."""

    _at = 0

    def read(self, name, offset, length):
        type(self)._at = offset
        threading.Event().wait(0.001)
        return super().read(name, self._at, length)


class SaysKeyError(StoreInMemory):
    """Lets its library's errors out."""

    def size(self, name):
        return len(self.all[name][0])


class ListsNotTheNewest(StoreInMemory):
    """Asks a replica that lags behind."""

    def listed(self):
        newest = max((number for _, number in self.all.values()), default=0)
        return [blob for blob in super().listed() if blob.stamp != str(newest)]


class ListsFromACache(StoreInMemory):
    """Remembers what it has listed once, until it writes itself."""

    def listed(self):
        if not hasattr(self, "_listed"):
            self._listed = super().listed()
        return self._listed

    def put(self, name, chunks, **how):
        count = super().put(name, chunks, **how)
        vars(self).pop("_listed", None)
        return count


class ListsWhatIsHidden(StoreInMemory):
    """Knows nothing of hidden folders."""

    def blobs(self, depth=0, odd=None):
        return [blob for blob in self.listed() if blob.name.count("/") <= depth]


class ListsAllDepths(StoreInMemory):
    """Lists a prefix, and all that is below it."""

    def blobs(self, depth=0, odd=None):
        return super().blobs(99, odd)


class ListsWithoutOrder(StoreInMemory):
    """Lists as things were written."""

    def blobs(self, depth=0, odd=None):
        return sorted(super().blobs(depth, odd), key=lambda blob: int(blob.stamp))


class ListsOnePage(StoreInMemory):
    """Gives the first page of a listing."""

    def listed(self):
        return super().listed()[:4]


class FindsHiddenFoldersOnlyAtTheTop(StoreInMemory):
    """Does not look into folders."""

    def hidden(self, folder, depth=0):
        return super().hidden(folder, 0)


class ForgetsSizes(StoreInMemory):
    """Lists no sizes."""

    def listed(self):
        return [Blob(blob.name, 0, stamp=blob.stamp) for blob in super().listed()]


class FindsPrefixes(StoreInMemory):
    """Says of a folder that it is there, as a blob."""

    def exists(self, name):
        return any(found.startswith(name) for found in self.all)


class StampsBySize(StoreInMemory):
    """Tells a blob from another by its length."""

    def stamp(self, name):
        return (self.size(name),) if self.exists(name) else None


class StampsByTheClock(StoreInMemory):
    """Tells another thing each time."""

    _ticks = 0

    def stamp(self, name):
        type(self)._ticks += 1
        return (self._ticks,) if self.exists(name) else None


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


class ShowsDrafts(LocalStore):
    """Lists a bundle that is being written."""

    def blobs(self, depth=0, odd=None):
        drafts = [name for name in self.leftovers(depth) if os.path.isdir(self.path(name))]
        return super().blobs(depth, odd) + [Blob(name, 0, bundle=True) for name in drafts]


class ShowsTheFilesOfABundle(LocalStore):
    """Lists what is in a bundle, too."""

    def blobs(self, depth=0, odd=None):
        found = super().blobs(depth, odd)
        inside = [
            Blob(f"{blob.name}/{file.name}", file.size)
            for blob in found
            if blob.bundle
            for file in self.files(blob.name)
        ]
        return sorted(found + inside, key=lambda blob: blob.name)


class RemovesOnlyTheSeal(LocalStore):
    """Leaves the files of a bundle where they are."""

    def remove(self, name):
        if os.path.exists(self.path(f"{name}/{SEAL}")):
            os.unlink(self.path(f"{name}/{SEAL}"))
        else:
            super().remove(name)


class TakesTheSealForAll(LocalStore):
    """Says of a bundle the bytes of its seal."""

    def size(self, name):
        return super().size(f"{name}/{SEAL}" if super().exists(f"{name}/{SEAL}") else name)


class LosesTheMark(LocalStore):
    """A second name of a bundle lacks a file."""

    def link(self, source, target):
        how = super().link(source, target)
        for file in self.files(target)[:1]:
            os.unlink(self.path(f"{target}/{file.name}"))
        return how


class _OtherDraft:
    """A draft that does one thing else."""

    def __init__(self, draft, **other):
        self._draft, self.folder, self.mark = draft, draft.folder, draft.mark
        self.add, self.settle, self.drop = draft.add, draft.settle, draft.drop
        for name, does in other.items():
            setattr(self, name, does)


class ForgetsTheGateOfADraft(LocalStore):
    """Settles without asking."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)
        return _OtherDraft(draft, settle=lambda sizes=None, gate=None: draft.settle(sizes))


class RemovesTheOldFirst(LocalStore):
    """Makes room before it is known that the new one may come."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)

        def settle(sizes=None, gate=None):
            self.remove(name)
            draft.settle(sizes, gate)

        return _OtherDraft(draft, settle=settle)


class DropsWhatIsSettled(LocalStore):
    """Removes at a drop whatever has the name."""

    def draft(self, name, mark=""):
        return _OtherDraft(super().draft(name, mark), drop=lambda: self.remove(name))


class DropsNothing(LocalStore):
    """Leaves a draft that was dropped."""

    def draft(self, name, mark=""):
        return _OtherDraft(super().draft(name, mark), drop=lambda: None)


class ReplacesOthersFolders(LocalStore):
    """Takes the place of a folder, whatever is in it."""

    def draft(self, name, mark=""):
        shutil.rmtree(self.path(name), ignore_errors=True)
        return super().draft(name, mark)


class SealsByItself(LocalStore):
    """Settles what has no seal."""

    def draft(self, name, mark=""):
        draft = super().draft(name, mark)

        def settle(sizes=None, gate=None):
            if not self.exists(f"{draft.folder}/{SEAL}"):
                draft.add(SEAL, b"{}")
            draft.settle(sizes, gate)

        return _OtherDraft(draft, settle=settle)


MUTANTS = [kind for kind in list(globals().values()) if isinstance(kind, type) and kind.__base__ is StoreInMemory]
BUNDLE_MUTANTS = [kind for kind in list(globals().values()) if isinstance(kind, type) and kind.__base__ is LocalStore]
