"""An object store in memory that takes parts as S3 does, and that can be made to fail."""

from __future__ import annotations

import hashlib
import threading
from datetime import datetime, timezone

from holdfast.storage.remote.objects import Head, Listed, Upload


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class ObjectsInMemory:
    """Keeps what it is given, part by part; ``calls`` has each request's name and number of bytes."""

    client = "memory"

    def __init__(self, rules):
        self.parts = rules
        self.kept = {}
        self.made_of_parts = {}
        self.underway = {}
        self.calls = []
        self.lock = threading.Lock()
        self.before = lambda kind, number: None  # called at each request, on the thread that makes it

    def _note(self, kind, size=0, number=0):
        with self.lock:
            self.calls.append((kind, size))
        self.before(kind, number)

    def named(self, kind):
        """The sizes of the requests of a kind."""
        return [size for name, size in self.calls if name == kind]

    def head(self, key):
        self._note("head")
        if key not in self.kept:
            raise FileNotFoundError(key)
        return self._head(key)

    def _head(self, key):
        body, etag = self.made_of_parts.get(key, (None, ""))
        return Head(len(self.kept[key]), etag if body is self.kept[key] else _md5(self.kept[key]))

    def get(self, key, start, end):
        self._note("get", end - start)
        if key not in self.kept:
            raise FileNotFoundError(key)
        return self.kept[key][start:end]

    def get_into(self, key, start, view):
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, key, data, *, absent=False, match=""):
        body = bytes(data) if isinstance(data, (bytes, memoryview)) else b"".join(data)
        self._note("put", len(body))
        if absent and key in self.kept:
            raise FileExistsError(key)
        self.kept[key] = body
        return Head(len(body), _md5(body))

    def begin(self, key):
        self._note("begin")
        upload = f"upload-{len(self.calls)}"
        self.underway[upload] = (key, {})
        return upload

    def part(self, key, upload, number, data):
        size = len(data)
        self._note("part", size, number)
        body = bytes(data)
        if upload not in self.underway:
            raise FileNotFoundError(upload)
        self.underway[upload][1][number] = body
        return _md5(body)

    def complete(self, key, upload, etags, *, absent=False):
        self._note("complete")
        if absent and key in self.kept:
            raise FileExistsError(key)
        if upload not in self.underway:
            raise FileNotFoundError(upload)
        parts = [body for _, body in sorted(self.underway[upload][1].items())]
        assert [_md5(part) for part in parts] == etags
        assert all(len(part) >= self.parts.least for part in parts[:-1])
        del self.underway[upload]
        self.kept[key] = b"".join(parts)
        together = _md5(b"".join(bytes.fromhex(etag) for etag in etags))
        self.made_of_parts[key] = (self.kept[key], f"{together}-{len(parts)}")
        return self._head(key)

    def abort(self, key, upload):
        self._note("abort")
        self.underway.pop(upload, None)

    def uploads(self, prefix):
        now = datetime.now(timezone.utc)
        return [Upload(key, upload, now) for upload, (key, _) in self.underway.items() if key.startswith(prefix)]

    def parts_of(self, key, upload):
        self._note("parts_of")
        if upload not in self.underway:
            raise FileNotFoundError(upload)
        return {number: Head(len(body), _md5(body)) for number, body in self.underway[upload][1].items()}

    def list(self, prefix, *, deep=True):
        self._note("list")
        found = sorted(key for key in self.kept if key.startswith(prefix) and (deep or "/" not in key[len(prefix) :]))
        return iter([Listed(len(self.kept[key]), self._head(key).etag, None, key) for key in found])

    def remove(self, keys):
        for key in keys:
            self.kept.pop(key, None)

    def copy(self, source, target):
        self.kept[target] = self.kept[source]
