"""An object store in a folder, for several processes; its clock is the filesystem's, its conditions kept or not."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from datetime import datetime, timezone
from urllib.parse import quote, unquote

from holdfast.storage.remote.objects import Head, Listed, PartRules, Upload


def _etag(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class FolderObjects:
    """Each object is a file, its key quoted; a write is whole or not at all. ``calls`` counts requests by their names.

    ``conditions``: whether puts keep theirs; ``whole_parts``: whether the end of an upload does.
    """

    client = "folder"
    parts = PartRules(least=1)

    def __init__(self, folder, *, conditions=True):
        self.folder, self.conditions = str(folder), conditions
        self.calls = []
        self.hidden = set()  # keys that listings do not show yet
        os.makedirs(self.folder, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self, call):
        self.calls.append(call)
        with open(os.path.join(self.folder, "lock"), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def file(self, key, kind="object"):
        return os.path.join(self.folder, f"{kind}-{quote(key, safe='')}")

    def age(self, key, seconds):
        """Have an object been put, or an upload begun, so long ago."""
        for path in (self.file(key), *self._uploads(key)):
            if os.path.exists(path):
                then = os.stat(path).st_mtime - seconds
                os.utime(path, (then, then))

    def there(self, kind="object"):
        return sorted(
            unquote(name.partition("-")[2]) for name in os.listdir(self.folder) if name.startswith(f"{kind}-")
        )

    def _read(self, key):
        with open(self.file(key), "rb") as file:
            return file.read()

    def _head(self, path):
        with open(path, "rb") as file:
            data = file.read()
        return len(data), _etag(data), datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)

    def head(self, key):
        with self._alone("head"):
            return Head(*self._head(self.file(key)))

    def get(self, key, start, end):
        with self._alone("get"):
            return self._read(key)[start:end]

    def get_into(self, key, start, view):
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def _may(self, key, *, absent, match):
        there = os.path.exists(self.file(key))
        if self.conditions and ((absent and there) or (match and (not there or _etag(self._read(key)) != match))):
            raise FileExistsError(key)

    def _write(self, key, data):
        temporary = os.path.join(self.folder, secrets.token_hex(8))
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, self.file(key))
        return Head(len(data), _etag(data))

    def put(self, key, data, *, absent=False, match=""):
        with self._alone("put"):
            self._may(key, absent=absent, match=match)
            return self._write(key, bytes(data))

    def begin(self, key):
        with self._alone("begin"):
            upload = secrets.token_hex(4)
            os.mkdir(self.file(key, f"upload.{upload}"))
            return upload

    def part(self, key, upload, number, data):
        with self._alone("part"):
            with open(os.path.join(self.file(key, f"upload.{upload}"), str(number)), "wb") as file:
                file.write(data)
            return _etag(bytes(data))

    def complete(self, key, upload, etags, *, absent=False):
        with self._alone("complete"):
            self._may(key, absent=absent, match="")
            folder = self.file(key, f"upload.{upload}")
            numbers = sorted(int(name) for name in os.listdir(folder))
            data = b"".join(open(os.path.join(folder, str(number)), "rb").read() for number in numbers)  # noqa: SIM115
            self._abort(folder)
            return self._write(key, data)

    def _abort(self, folder):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)

    def abort(self, key, upload):
        with self._alone("abort"), contextlib.suppress(FileNotFoundError):
            self._abort(self.file(key, f"upload.{upload}"))

    def _uploads(self, key):
        return [
            os.path.join(self.folder, name)
            for name in os.listdir(self.folder)
            if name.startswith("upload.") and unquote(name.partition("-")[2]).startswith(key)
        ]

    def uploads(self, prefix):
        with self._alone("uploads"):
            found = []
            for path in self._uploads(prefix):
                kind, _, key = os.path.basename(path).partition("-")
                begun = datetime.fromtimestamp(os.stat(path).st_mtime, timezone.utc)
                found.append(Upload(unquote(key), kind.partition(".")[2], begun))
            return found

    def parts_of(self, key, upload):
        with self._alone("parts_of"):
            folder = self.file(key, f"upload.{upload}")
            return {int(name): Head(*self._head(os.path.join(folder, name))) for name in os.listdir(folder)}

    def list(self, prefix, *, deep=True):
        with self._alone("list"):
            keys = [key for key in self.there() if key.startswith(prefix) and key not in self.hidden]
            keys = [key for key in keys if deep or "/" not in key[len(prefix) :]]
            return iter([Listed(*self._head(self.file(key)), key) for key in keys])

    def remove(self, keys):
        with self._alone("remove"):
            for key in keys:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.file(key))

    def copy(self, source, target):
        with self._alone("copy"):
            self._write(target, self._read(source))

    def stream(self, key, chunks, *, absent=False):
        return self.put(key, b"".join(bytes(memoryview(chunk).cast("B")) for chunk in chunks), absent=absent)


def seen(objects, key):
    """What a claim's object says."""
    return json.loads(objects.get(key, 0, 1 << 16))
