"""Any filesystem that fsspec knows, as objects. There are no parts: an object is written in one go.

Where an upload does not exist until it is completed it is opened with ``autocommit=False``, because a plain
``with fs.open()`` would complete it even when the writer fails in the middle. Elsewhere the bytes go to a temporary
name that is then moved.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.dirfs import DirFileSystem

from holdfast.storage.contract import HIDDEN
from holdfast.storage.remote.failures import cause_of, translated
from holdfast.storage.remote.no_parts import NoParts
from holdfast.storage.remote.objects import Body, Bytes, Head, Listed

_UPLOADS_ARE_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs"})
_ETAGS = ("etag", "ETag", "md5Hash", "generation")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
_T = TypeVar("_T")


class FsspecObjects(NoParts):
    """The objects of a filesystem. From any thread, and after a fork."""

    def __init__(self, fs: Any) -> None:
        """Speak through this filesystem, or in a forked child through one that is made alike."""
        self._made = fs
        self._pid = os.getpid()
        protocol = fs.protocol
        self._finds = _finds(fs)
        self._atomic = bool(({protocol} if isinstance(protocol, str) else set(protocol)) & _UPLOADS_ARE_ATOMIC)

    @property
    def client(self) -> str:
        """The filesystem's own module."""
        return type(self._made).__module__.partition(".")[0]

    @property
    def fs(self) -> Any:
        """The filesystem of this process."""
        if self._pid != os.getpid():
            self._made = type(self._made)(*self._made.storage_args, **self._made.storage_options)
            self._pid = os.getpid()
        return self._made

    def _try(self, what: str, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except Exception as error:
            known = translated(error, what)
            if known is error:
                raise
            raise known from cause_of(known, error)

    def head(self, key: str) -> Head:
        """Look at an object."""
        self.fs.invalidate_cache()
        try:
            info = self._try(f"info {key}", lambda: self.fs.info(key))
        except NotADirectoryError as error:  # a file is where the key would have a folder: there is nothing below it
            msg = f"there is no {key}"
            raise FileNotFoundError(msg) from error
        if info.get("type") == "directory":
            msg = f"{key} is a folder"
            raise FileNotFoundError(msg)
        return Head(int(info["size"] or 0), _etag(info), _modified(info))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a range."""
        if end <= start:
            return b""
        try:
            return self._try(f"read {key}", lambda: bytes(self.fs.cat_file(key, start=start, end=end)))
        except OSError:
            if start < self.head(key).size:
                raise
            return b""  # object stores call a range at the end, or of an empty object, an error

    def get_into(self, key: str, start: int, view: memoryview) -> int:
        """Read a range into memory."""
        data = self.get(key, start, start + len(view))
        view[: len(data)] = data
        return len(data)

    def put(self, key: str, data: Body, *, absent: bool = False, match: str = "") -> Head:  # noqa: ARG002
        """Make an object, or replace it. A condition is looked at before, no more: there is none to hand over."""
        chunks: Iterable[Bytes] = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
        if absent and self._is_there(key):
            msg = f"{key} is there"
            raise FileExistsError(msg)
        self.fs.invalidate_cache()
        size = (self._upload if self._atomic else self._write_and_move)(key, chunks)
        self.fs.invalidate_cache()
        return Head(size)

    def _is_there(self, key: str) -> bool:
        """Look. Not by ``fs.exists``, for which whatever goes wrong is a no."""
        try:
            self.head(key)
        except FileNotFoundError:
            return False
        return True

    def _upload(self, key: str, chunks: Iterable[Bytes]) -> int:
        what = f"write {key}"
        file = self._try(what, lambda: self.fs.open(key, "wb", autocommit=False))
        try:
            written = self._write(what, file, chunks)
            self._try(what, file.close)
            self._try(what, file.commit)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                file.discard()
            raise
        return written

    def _write_and_move(self, key: str, chunks: Iterable[Bytes]) -> int:
        what = f"write {key}"
        with self._moved(key, what) as temporary, self._try(what, lambda: self.fs.open(temporary, "wb")) as file:
            written = self._write(what, file, chunks)
            self._try(what, file.close)
        return written

    @contextlib.contextmanager
    def _moved(self, key: str, what: str) -> Iterator[str]:
        """Give what is made under a temporary name its own in one step; remove it on an error."""
        folder = key.rpartition("/")[0]
        temporary = f"{folder}/{HIDDEN}{secrets.token_hex(8)}.tmp"
        try:
            self._try(what, lambda: self.fs.makedirs(folder, exist_ok=True))
            yield temporary
            self._try(what, lambda: self.fs.mv(temporary, key))
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.fs.rm_file(temporary)
            raise

    def _write(self, what: str, file: Any, chunks: Iterable[Bytes]) -> int:
        """Write the chunks; what these raise comes out as it is."""
        written = 0
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            self._try(what, partial(file.write, view))
            written += len(view)
        return written

    def list(self, prefix: str, *, deep: bool = True) -> Iterator[Listed]:
        """Return the objects whose keys begin so."""
        self.fs.invalidate_cache()
        folder, _, start = prefix.rpartition("/")
        if not start:
            yield from self._below(prefix, deep=deep)
            return
        yield from self._walk(folder, prefix, deep=deep)

    def _below(self, prefix: str, *, deep: bool) -> Iterator[Listed]:
        if not self._finds:
            yield from self._walk(prefix[:-1], prefix, deep=deep)
            return
        depth = None if deep else 1
        try:
            found = self._try(f"list {prefix}", lambda: self.fs.find(prefix[:-1], maxdepth=depth, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from (_listed(key, info) for key, info in found.items() if key.startswith(prefix))

    def _walk(self, folder: str, prefix: str, *, deep: bool) -> Iterator[Listed]:
        """Go from folder to folder. ``fs.find`` does so too, but leaves out each that could not be listed."""
        for info in self._in(folder):
            key = info["name"].rstrip("/")
            if not key.startswith(prefix):
                continue
            if info["type"] != "directory":
                yield _listed(key, info)
            elif deep:
                yield from self._below(f"{key}/", deep=True)

    def _in(self, folder: str) -> Sequence[dict[str, Any]]:
        """Return what is right in a folder; nothing if it is not there."""
        try:
            return [*self._try(f"list {folder}/", lambda: self.fs.ls(folder, detail=True))]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, keys: Collection[str]) -> None:
        """Remove objects, one by one."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._try(f"remove {key}", partial(self.fs.rm_file, key))
        self.fs.invalidate_cache()

    def copy(self, source: str, target: str) -> None:
        """Copy by the filesystem's own means; where that is no one step, under a temporary name first."""
        what = f"copy {source}"
        if self._atomic:
            self._try(what, lambda: self.fs.cp_file(source, target))
        else:
            with self._moved(target, what) as temporary:
                self._try(what, lambda: self.fs.cp_file(source, temporary))
        self.fs.invalidate_cache()


def _listed(key: str, info: dict[str, Any]) -> Listed:
    return Listed(int(info["size"] or 0), _etag(info), _modified(info), key)


def _finds(fs: Any) -> bool:
    """Tell whether a filesystem has a listing of everything below a folder of its own, as object stores have."""
    kind = type(fs)
    plain = (AbstractFileSystem.find, AsyncFileSystem._find)  # noqa: SLF001 - to tell whether it was given
    return getattr(kind, "_find", kind.find) not in plain and kind is not DirFileSystem


def _etag(info: dict[str, Any]) -> str:
    found = next((info[name] for name in _ETAGS if info.get(name)), "")
    return str(found).strip('"')


def _modified(info: dict[str, Any]) -> datetime | None:
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, timezone.utc)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return None
