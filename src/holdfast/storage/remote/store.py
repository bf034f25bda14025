"""Blobs behind a URL. A blob is committed when its put has completed: an object appears in one step, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from holdfast.errors import ConfigurationError
from holdfast.storage.contract import HIDDEN, Blob, Chunks, Draft, Free
from holdfast.storage.remote.connect import connect, key_of
from holdfast.storage.remote.objects import Listed, Objects
from holdfast.storage.remote.uploading import upload_chunks

_WITHIN = 2  # folders of a hidden folder: itself, and one in it
_ABANDONED = timedelta(days=1)


@dataclass(frozen=True)
class RemoteStore:
    """The blobs under one URL."""

    root: str
    base: str
    objects: Objects

    @classmethod
    def at(cls, url: str) -> RemoteStore:
        """Connect to the server of a URL."""
        objects, base = connect(url)
        return cls(url.rstrip("/"), base, objects)

    @property
    def is_local(self) -> bool:
        """A remote store is not."""
        return False

    def path(self, name: str) -> str:
        """Return the URL of a name."""
        return f"{self.root}/{name}"

    def name_of(self, path: str) -> str | None:
        """Return the name of a URL under the root, however its slashes are written."""
        key, prefix = key_of(path, self.root), f"{self.base}/"
        return key[len(prefix) :] if key is not None and key.startswith(prefix) else None

    def _key(self, name: str) -> str:
        return f"{self.base}/{name}"

    def blobs(self, depth: int = 0, odd: dict[str, str] | None = None) -> list[Blob]:
        """Return the blobs under the root; there is nothing odd among them."""
        del odd
        found = self._everything(depth)
        return [blob for blob in found if not _is_temporary(blob.name) and not _hidden_at(blob.name)]

    def hidden(self, folder: str, depth: int = 0) -> list[Blob]:
        """Return the blobs in the hidden folders of this name."""
        if depth <= 0:
            inside = RemoteStore(f"{self.root}/{folder}", f"{self.base}/{folder}", self.objects)
            everything = inside._everything(_WITHIN * 4)
            found = [replace(blob, name=f"{folder}/{blob.name}") for blob in everything]
        else:
            parts = ((blob, f"/{blob.name}".partition(f"/{folder}/")) for blob in self._everything(depth + _WITHIN))
            found = [blob for blob, (before, inside, _) in parts if inside and before.count("/") <= depth]
        return [blob for blob in found if not _is_temporary(blob.name)]

    def leftovers(self, depth: int = 0) -> list[str]:
        """Return the temporaries of this store; unfinished uploads are the object store's own affair."""
        return [name for name, _ in self._temporaries(depth)]

    def _temporaries(self, depth: int) -> list[tuple[str, Listed]]:
        found = ((name, item) for name, item in self._listed(depth + _WITHIN) if _is_temporary(name))
        return [(name, item) for name, item in found if name.count("/") <= depth or _hidden_at(name)]

    def _everything(self, depth: int) -> list[Blob]:
        return [Blob(name, item.size, stamp=item.etag) for name, item in self._listed(depth)]

    def _listed(self, depth: int) -> list[tuple[str, Listed]]:
        """List by name. Below the root without a limit: that is one request for a thousand, not one a folder."""
        start = len(self.base) + 1
        found = ((item.key[start:], item) for item in self.objects.list(f"{self.base}/", deep=depth > 0))
        kept = [(name, item) for name, item in found if name and not name.endswith("/") and name.count("/") <= depth]
        return sorted(kept, key=lambda pair: pair[0])

    def exists(self, name: str) -> bool:
        """Ask the remote side, past every cache."""
        try:
            self.objects.head(self._key(name))
        except FileNotFoundError:
            return False
        return True

    def size(self, name: str) -> int:
        """Ask the remote side."""
        return self.objects.head(self._key(name)).size

    def stamp(self, name: str) -> tuple[int, ...] | None:  # noqa: ARG002 - the contract's
        """Return None: not every remote filesystem can tell."""
        return None

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read one range."""
        key = self._key(name)
        if length <= 0:
            return b""
        return self.objects.get(key, offset, offset + length)

    def put(self, name: str, chunks: Chunks, *, over: str = "", gate: Callable[[], None] | None = None) -> int:
        """Upload, check the length, and only then let the blob appear."""
        del over  # there is no writing over what is stored
        return upload_chunks(self.objects, self._key(name), chunks, gate=gate).size

    def draft(self, name: str) -> Draft:
        """Raise an error: several files cannot yet be committed as one there.

        Raises:
            ConfigurationError: always.

        """
        msg = (
            f"{self.path(name)} would have several files, and those are committed as one only on a local filesystem: "
            "choose a directory of this machine, or one that is mounted, for sharded checkpoints"
        )
        raise ConfigurationError(msg)

    def retire(self, name: str) -> str:
        """Remove the blob: there are no blocks to keep."""
        self.remove(name)
        return ""

    def _check_length(self, name: str, length: int, written: int) -> None:
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
        self.objects.copy(self._key(source), self._key(target))
        self._check_length(target, self.size(target), self.size(source))
        return "copy"

    def remove(self, name: str) -> None:
        """Remove one blob."""
        self.objects.remove([self._key(name)])

    def free(self) -> Free | None:
        """Return None: no remote store says so."""
        return None

    def sweep(self, depth: int = 0) -> list[str]:
        """Remove temporaries a day old: whether a younger one's writer still lives cannot be told from here."""
        dead = [name for name, item in self._temporaries(depth) if _age(item) > _ABANDONED]
        if dead:
            self.objects.remove([self._key(name) for name in dead])
        return dead


def _age(item: Listed) -> timedelta:
    return datetime.now(timezone.utc) - item.modified if item.modified else timedelta(0)


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(HIDDEN)


def _hidden_at(name: str) -> bool:
    """Tell whether a blob lies in a hidden folder."""
    return f"/{HIDDEN}" in f"/{name.rpartition('/')[0]}"
