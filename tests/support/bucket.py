"""A bucket in memory that behaves as S3 does: parts, conditions, a clock. It can be put back as it was."""

from __future__ import annotations

import hashlib
import secrets
import threading
from datetime import datetime, timezone

from holdfast.storage.remote.objects import Head, Listed, PartRules, Upload


def _md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _joined(data):
    return bytes(data) if isinstance(data, (bytes, bytearray, memoryview)) else b"".join(data)


class Bucket:
    """Objects in memory. ``least``: of a part, in bytes; ``conditions``: whether puts keep them."""

    def __init__(self, *, least=1, conditions=True):
        self.parts = PartRules(least=least)
        self.conditions = conditions
        self.client = f"bucket {secrets.token_hex(4)}"  # what one can do is not what another can
        self._kept = {}  # by key: bytes and head
        self._uploads = {}  # by id: key, time, parts by number
        self._lock = threading.RLock()

    def state(self):
        """Return all that is in it."""
        with self._lock:
            return dict(self._kept), {upload: (*rest, dict(parts)) for upload, (*rest, parts) in self._uploads.items()}

    def put_back(self, state):
        """Have it be as it was."""
        with self._lock:
            self._kept = dict(state[0])
            self._uploads = {upload: (*rest, dict(parts)) for upload, (*rest, parts) in state[1].items()}

    def _found(self, key):
        if key not in self._kept:
            raise FileNotFoundError(key)
        return self._kept[key]

    def _keep(self, key, data, etag):
        self._kept[key] = data, Head(len(data), etag, datetime.now(timezone.utc))
        return self._kept[key][1]

    def _may(self, key, *, absent, match=""):
        there = self._kept.get(key)
        if self.conditions and ((absent and there) or (match and (not there or there[1].etag != match))):
            raise FileExistsError(key)

    def head(self, key):
        with self._lock:
            return self._found(key)[1]

    def get(self, key, start, end):
        with self._lock:
            return self._found(key)[0][start:end]

    def get_into(self, key, start, view):
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, key, data, *, absent=False, match=""):
        body = _joined(data)
        with self._lock:
            self._may(key, absent=absent, match=match)
            return self._keep(key, body, _md5(body))

    def begin(self, key):
        upload = secrets.token_hex(6)
        with self._lock:
            self._uploads[upload] = (key, datetime.now(timezone.utc), {})
        return upload

    def _parts(self, upload):
        if upload not in self._uploads:
            raise FileNotFoundError(upload)
        return self._uploads[upload][2]

    def part(self, key, upload, number, data):
        body = bytes(data)
        with self._lock:
            self._parts(upload)[number] = body
        return _md5(body)

    def complete(self, key, upload, etags, *, absent=False):
        with self._lock:
            parts = [body for _, body in sorted(self._parts(upload).items())]
            self._may(key, absent=absent)
            if [_md5(part) for part in parts] != etags:
                raise OSError("InvalidPart")
            del self._uploads[upload]
            together = _md5(b"".join(bytes.fromhex(etag) for etag in etags))
            return self._keep(key, b"".join(parts), f"{together}-{len(parts)}")

    def abort(self, key, upload):
        with self._lock:
            self._uploads.pop(upload, None)

    def uploads(self, prefix):
        with self._lock:
            return [Upload(key, one, at) for one, (key, at, _) in self._uploads.items() if key.startswith(prefix)]

    def parts_of(self, key, upload):
        with self._lock:
            return {number: Head(len(body), _md5(body)) for number, body in self._parts(upload).items()}

    def list(self, prefix, *, deep=True):
        with self._lock:
            found = [(key, head) for key, (_, head) in sorted(self._kept.items()) if key.startswith(prefix)]
        shown = [(key, head) for key, head in found if deep or "/" not in key[len(prefix) :]]
        return iter([Listed(head.size, head.etag, head.modified, key) for key, head in shown])

    def remove(self, keys):
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)

    def copy(self, source, target):
        with self._lock:
            data, head = self._found(source)
            self._keep(target, data, head.etag)
