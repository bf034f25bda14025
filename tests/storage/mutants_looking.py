"""Stores with one bug each in what they read, list or tell."""

from __future__ import annotations

import threading

from holdfast.storage import Blob
from tests.storage.store_in_memory import StoreInMemory


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


MUTANTS = [kind for kind in list(globals().values()) if isinstance(kind, type) and kind.__base__ is StoreInMemory]
