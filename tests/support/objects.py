"""An object store in memory, as strict as a server: for tests of what is above ``Objects``."""

from __future__ import annotations

import hashlib
import itertools
import threading
from datetime import datetime, timedelta, timezone

from holdfast.storage.remote.objects import Head, Listed, PartRules, Upload


class MemoryObjects:
    """Keeps its objects in ``blobs``, its uploads in ``begun``; a write is whole or not at all; conditions are kept.

    Its clock goes on by a second with each request.
    """

    client = "memory"

    def __init__(self, parts=None, *, conditions=True):
        self.parts = parts or PartRules(least=1)
        self.conditions = conditions
        self.blobs, self.begun = {}, {}
        self._made = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def _tick(self):
        self.now += timedelta(seconds=1)

    def head(self, key):
        with self._lock:
            self._tick()
            return Head(len(self._data(key)), *self._made[key])

    def _data(self, key):
        if key not in self.blobs:
            raise FileNotFoundError(key)
        return self.blobs[key]

    def get(self, key, start, end):
        with self._lock:
            self._tick()
            return self._data(key)[start:end]

    def get_into(self, key, start, view):
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, key, data, *, absent=False, match=""):
        with self._lock:
            return self._make(key, bytes(data), absent=absent, match=match)

    def _make(self, key, data, *, absent=False, match="", etag=None):
        self._tick()
        if self.conditions and ((absent and key in self.blobs) or (match and self._made.get(key, ("",))[0] != match)):
            raise FileExistsError(key)
        self.blobs[key] = data
        self._made[key] = (etag or _etag(data), self.now)
        return Head(len(data), *self._made[key])

    def stream(self, key, chunks, *, absent=False):
        return self.put(key, b"".join(bytes(memoryview(chunk).cast("B")) for chunk in chunks), absent=absent)

    def begin(self, key):
        with self._lock:
            self._tick()
            upload = f"upload-{next(self._numbers)}"
            self.begun[upload] = (key, self.now, {})
            return upload

    def _parts(self, key, upload):
        if self.begun.get(upload, ("",))[0] != key:
            msg = f"no upload {upload} of {key}"
            raise FileNotFoundError(msg)
        return self.begun[upload][2]

    def part(self, key, upload, number, data):
        with self._lock:
            self._tick()
            self._parts(key, upload)[number] = bytes(data)
            return _etag(bytes(data))

    def complete(self, key, upload, etags, *, absent=False):
        with self._lock:
            parts = self._parts(key, upload)
            data = [parts.get(number + 1) for number in range(len(etags))]
            if any(part is None or _etag(part) != etag for part, etag in zip(data, etags, strict=True)):
                raise OSError("InvalidPart")
            if any(len(part) < self.parts.least for part in data[:-1]):
                raise OSError("EntityTooSmall")
            etag = f"{_etag(b''.join(bytes.fromhex(_etag(part)) for part in data))}-{len(data)}"
            head = self._make(key, b"".join(data), absent=absent, etag=etag)
            del self.begun[upload]
            return head

    def abort(self, key, upload):
        with self._lock:
            self._tick()
            self.begun.pop(upload, None)

    def uploads(self, prefix):
        with self._lock:
            self._tick()
            return [Upload(key, upload, at) for upload, (key, at, _) in self.begun.items() if key.startswith(prefix)]

    def parts_of(self, key, upload):
        with self._lock:
            self._tick()
            return {number: Head(len(data), _etag(data)) for number, data in self._parts(key, upload).items()}

    def list(self, prefix, *, deep=True):
        with self._lock:
            self._tick()
            found = sorted(key for key in self.blobs if key.startswith(prefix))
            if not deep:
                found = [key for key in found if "/" not in key[len(prefix) :]]
            return iter([Listed(len(self.blobs[key]), *self._made[key], key) for key in found])

    def remove(self, keys):
        with self._lock:
            self._tick()
            for key in keys:
                self.blobs.pop(key, None)

    def copy(self, source, target):
        with self._lock:
            self._make(target, self._data(source))


def _etag(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
