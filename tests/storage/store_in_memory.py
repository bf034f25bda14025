"""A store of one's own in a hundred lines, which keeps the contract: what others would write, and what is broken."""

from __future__ import annotations

import errno
import itertools
import os
from collections import defaultdict
from contextlib import nullcontext

from holdfast.storage import Blob

_numbers = itertools.count(1)
_roots = defaultdict(dict)  # what is where: of each root the bytes and the number of each name's last writing


def gone(path):
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class StoreInMemory:
    """Blobs of this process: one root for each URL."""

    is_local = False

    def __init__(self, root):
        self.root = root

    @property
    def all(self):
        return _roots[self.root]

    def path(self, name):
        return f"{self.root}/{name}"

    def name_of(self, path):
        return path[len(self.root) + 1 :] if path.startswith(f"{self.root}/") else None

    def listed(self):
        return [Blob(name, len(data), stamp=str(number)) for name, (data, number) in sorted(self.all.items())]

    def blobs(self, depth=0, odd=None):
        shown = [blob for blob in self.listed() if "/.holdfast-" not in f"/{blob.name}"]
        return [blob for blob in shown if blob.name.count("/") <= depth]

    def files(self, folder):
        inside = [blob for blob in self.listed() if blob.name.rpartition("/")[0] == folder]
        return [Blob(blob.name.rpartition("/")[2], blob.size, stamp=blob.stamp) for blob in inside]

    def hidden(self, folder, depth=0):
        parts = ((blob, *f"/{blob.name}".partition(f"/{folder}/")) for blob in self.listed())
        return [blob for blob, before, found, _ in parts if found and before.count("/") <= depth]

    def leftovers(self, depth=0):
        return []

    def sweep(self, depth=0):
        return []

    def free(self):
        return None

    def exists(self, name):
        return name in self.all

    def get(self, name):
        if name not in self.all:
            raise gone(self.path(name))
        return self.all[name]

    def size(self, name):
        return len(self.get(name)[0])

    def stamp(self, name):
        return (self.all[name][1],) if name in self.all else None

    def read(self, name, offset, length):
        return self.get(name)[0][offset : offset + length]

    def read_into(self, name, offset, view):
        data = self.read(name, offset, len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, name, chunks, *, over="", gate=None, size=0):
        data = b"".join(map(bytes, chunks))
        if gate is not None:
            gate()
        self.all[name] = (data, next(_numbers))
        return len(data)

    def link(self, source, target):
        self.all[target] = (self.get(source)[0], next(_numbers))
        return "copy"

    def move(self, name, target):
        return False

    def remove(self, name):
        self.all.pop(name, None)

    def retire(self, name):
        self.remove(name)
        return ""

    def hold(self, name, *, alone=False):
        return nullcontext(self.exists(name))

    def draft(self, name, mark=""):
        raise OSError(errno.ENOTSUP, "bundles are not kept here", self.path(name))
