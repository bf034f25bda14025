"""Blobs behind an fsspec URL. A blob is committed when its put has completed.

On an object store an upload does not exist until it is completed; it is opened with
``autocommit=False``, because a plain ``with fs.open()`` would complete it even when the writer fails
in the middle. Elsewhere the bytes go to a temporary name that is then moved.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import fsspec.core

from holdfast.errors import ConfigurationError
from holdfast.storage.contract import HIDDEN, Blob, Chunks, Draft, Free

_UPLOADS_ARE_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs"})
_FLAT = 8  # folders down from which everything is listed, and what lies deeper left out
_WITHIN = 2  # folders of a hidden folder: itself, and one in it
_ABANDONED = timedelta(days=1)


@dataclass(frozen=True)
class RemoteStore:
    """The blobs under one URL."""

    root: str
    base: str
    fs: Any

    @classmethod
    def at(cls, url: str) -> RemoteStore:
        """Connect to the filesystem of a URL."""
        fs, base = fsspec.core.url_to_fs(url)
        return cls(url.rstrip("/"), base.rstrip("/"), fs)

    @property
    def is_local(self) -> bool:
        """A remote store is not."""
        return False

    def path(self, name: str) -> str:
        """Return the URL of a name."""
        return f"{self.root}/{name}"

    def name_of(self, path: str) -> str | None:
        """Return the name of a URL under the root, however its slashes are written."""
        scheme = path.partition("://")[0]
        known = self.fs.protocol
        if "://" not in path or scheme not in ({known} if isinstance(known, str) else set(known)):
            return None
        key, prefix = self.fs._strip_protocol(path), f"{self.base}/"  # noqa: SLF001 - fsspec's own name for it
        return key[len(prefix) :] if key.startswith(prefix) else None

    def _key(self, name: str) -> str:
        return f"{self.base}/{name}"

    def blobs(self, depth: int = 0, odd: dict[str, str] | None = None) -> list[Blob]:
        """Return the blobs under the root; there is nothing odd among them."""
        del odd
        found = self._everything(depth)
        return [blob for blob in found if not _is_temporary(blob.name) and not _hidden_at(blob.name)]

    def files(self, folder: str) -> list[Blob]:
        """Return the files right in a folder."""
        inside = RemoteStore(f"{self.root}/{folder}", f"{self.base}/{folder}", self.fs)
        return inside._everything(0)

    def hidden(self, folder: str, depth: int = 0) -> list[Blob]:
        """Return the blobs in the hidden folders of this name."""
        if depth <= 0:
            inside = RemoteStore(f"{self.root}/{folder}", f"{self.base}/{folder}", self.fs)
            found = [Blob(f"{folder}/{blob.name}", blob.size) for blob in inside._everything(_FLAT)]
        else:
            parts = ((blob, f"/{blob.name}".partition(f"/{folder}/")) for blob in self._everything(depth + _WITHIN))
            found = [blob for blob, (before, inside, _) in parts if inside and before.count("/") <= depth]
        return [blob for blob in found if not _is_temporary(blob.name)]

    def leftovers(self, depth: int = 0) -> list[str]:
        """Return the temporaries of this store; unfinished uploads are the object store's own affair."""
        return [blob.name for blob in self._temporaries(depth)]

    def _temporaries(self, depth: int) -> list[Blob]:
        found = (blob for blob in self._everything(depth + _WITHIN) if _is_temporary(blob.name))
        return [blob for blob in found if blob.name.count("/") <= depth or _hidden_at(blob.name)]

    def _everything(self, depth: int) -> list[Blob]:
        """List the blobs. From some depth on without a limit: that is one request for a thousand, not one a folder."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.base, maxdepth=depth + 1 if depth < _FLAT else None, detail=True)
        except FileNotFoundError:
            return []
        start = len(self.base.strip("/")) + 1
        blobs = (Blob(key.strip("/")[start:], int(info["size"] or 0)) for key, info in found.items())
        return sorted(
            (blob for blob in blobs if blob.name and blob.name.count("/") <= depth), key=lambda blob: blob.name
        )

    def exists(self, name: str) -> bool:
        """Ask the remote side, past every cache."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self._key(name)))

    def size(self, name: str) -> int:
        """Ask the remote side."""
        return int(self.fs.info(self._key(name))["size"])

    def stamp(self, name: str) -> tuple[int, ...] | None:  # noqa: ARG002 - the contract's
        """Return None: not every remote filesystem can tell."""
        return None

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read one range."""
        if length <= 0:
            return b""
        try:
            return bytes(self.fs.cat_file(self._key(name), start=offset, end=offset + length))
        except OSError:
            if offset < self.size(name):
                raise
            return b""  # object stores call a range at the end, or of an empty blob, an error

    def put(self, name: str, chunks: Chunks, *, over: str = "", gate: Callable[[], None] | None = None) -> int:
        """Upload, check the length, and only then let the blob appear."""
        del over  # there is no writing over what is stored
        key = self._key(name)
        self.fs.makedirs(key.rpartition("/")[0], exist_ok=True)
        protocols = self.fs.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        send = self._upload if names & _UPLOADS_ARE_ATOMIC else self._write_and_move
        written = send(key, _then(chunks, gate))
        self.fs.invalidate_cache()
        self._check_length(name, written)
        return written

    def draft(self, name: str, mark: str = "") -> Draft:
        """Raise an error: several files cannot yet be committed as one there.

        Raises:
            ConfigurationError: always.

        """
        del mark
        msg = (
            f"{self.path(name)} would have several files, and those are committed as one only on a local filesystem: "
            "choose a directory of this machine, or one that is mounted, for sharded checkpoints"
        )
        raise ConfigurationError(msg)

    def retire(self, name: str) -> str:
        """Remove the blob: there are no blocks to keep."""
        self.remove(name)
        return ""

    def _upload(self, key: str, chunks: Chunks) -> int:
        file = self.fs.open(key, "wb", autocommit=False)
        try:
            written = _write_all(file, chunks)
            file.close()
            file.commit()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                file.discard()
            raise
        return written

    def _write_and_move(self, key: str, chunks: Chunks) -> int:
        folder = key.rpartition("/")[0]
        temporary = f"{folder}/{HIDDEN}{secrets.token_hex(8)}.tmp"
        try:
            with self.fs.open(temporary, "wb") as file:
                written = _write_all(file, chunks)
            self.fs.mv(temporary, key)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.fs.rm_file(temporary)
            raise
        return written

    def _check_length(self, name: str, written: int) -> None:
        length = self.size(name)
        if length != written:
            msg = f"sent {written} bytes but {self.path(name)} has {length}"
            raise OSError(msg)

    def move(self, name: str, target: str) -> bool:  # noqa: ARG002 - the contract's
        """Return False: a remote move is a copy and a removal, and may end between the two."""
        return False

    def hold(self, name: str, *, alone: bool = False) -> contextlib.AbstractContextManager[bool]:
        """Hold nothing: a remote store has no locks."""
        del alone
        return contextlib.nullcontext(self.exists(name))

    def link(self, source: str, target: str) -> str:
        """Copy on the remote side: object stores have no second names."""
        self.fs.makedirs(self._key(target).rpartition("/")[0], exist_ok=True)
        self.fs.cp_file(self._key(source), self._key(target))
        self.fs.invalidate_cache()
        self._check_length(target, self.size(source))
        return "copy"

    def remove(self, name: str) -> None:
        """Remove one blob."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._key(name))
        self.fs.invalidate_cache()

    def free(self) -> Free | None:
        """Return None: no remote store says so."""
        return None

    def sweep(self, depth: int = 0) -> list[str]:
        """Remove temporaries a day old: whether a younger one's writer still lives cannot be told from here."""
        removed = []
        for blob in self._temporaries(depth):
            if self._age(blob.name) > _ABANDONED:
                self.remove(blob.name)
                removed.append(blob.name)
        return removed

    def _age(self, name: str) -> timedelta:
        try:
            modified: datetime = self.fs.modified(self._key(name))
        except (NotImplementedError, OSError, KeyError, TypeError):
            return timedelta(0)
        zone = modified.tzinfo or timezone.utc
        return datetime.now(zone) - modified.replace(tzinfo=zone)


def _then(chunks: Chunks, gate: Callable[[], None] | None) -> Chunks:
    """Yield the chunks; behind the last one, before the blob is completed, open the gate."""
    yield from chunks
    if gate is not None:
        gate()


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(HIDDEN)


def _hidden_at(name: str) -> bool:
    """Tell whether a blob lies in a hidden folder."""
    return f"/{HIDDEN}" in f"/{name.rpartition('/')[0]}"


def _write_all(file: Any, chunks: Chunks) -> int:
    written = 0
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        file.write(view)
        written += len(view)
    return written
