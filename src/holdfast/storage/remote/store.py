"""Blobs behind a URL. A blob is committed when its put has completed: an object appears in one step, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from typing_extensions import Unpack

from holdfast.storage.contract import HIDDEN, SEAL, Blob, Chunks, Free
from holdfast.storage.marks import mark_of
from holdfast.storage.paths import has_dots, no_dots
from holdfast.storage.remote.bundles import Listing, fold, may_be_bundle, remains
from holdfast.storage.remote.claims import Claim, check_commit, claim, claimed_here
from holdfast.storage.remote.connect import connect, key_of
from holdfast.storage.remote.dead_uploads import abort_dead, dead_before, depth_of, unfinished
from holdfast.storage.remote.drafts import (
    RemoteDraft,
    folder_at,
    link_bundle,
    read_all,
    sweep_bundles,
)
from holdfast.storage.remote.moving import move_by_copy
from holdfast.storage.remote.objects import Head, Listed, Objects
from holdfast.storage.remote.reading import read_into
from holdfast.storage.remote.rivals import claimed_below
from holdfast.storage.remote.standing import discard, end_bundle, note_no_bundle, stands
from holdfast.storage.remote.uploading import Sending, Source, upload, upload_chunks
from holdfast.storage.standing import Standing, stamp_of

_WITHIN = 2  # folders of a hidden folder: itself, and one in it


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

    def __reduce__(self) -> tuple[Callable[[str], RemoteStore], tuple[str]]:
        """Have another process, such as another rank, connect by itself: no secret goes to it."""
        return RemoteStore.at, (self.root,)

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

    def key(self, name: str) -> str:
        """Return the key of a name. What has dots for a part is an ``OSError``: some clients would take them out."""
        return f"{self.base}/{no_dots(name)}"

    def blobs(self, depth: int = 0, odd: dict[str, str] | None = None) -> list[Blob]:
        """Return the blobs under the root; there is nothing odd among them."""
        del odd
        listing = self._listed(depth + 1)  # a seal is one folder further down than its bundle
        return fold([pair for pair in listing if not _is_temporary(pair[0]) and not _hidden_at(pair[0])], depth)

    def files(self, folder: str) -> list[Blob]:
        """Return the files right in a folder. One request for a thousand."""
        there = folder_at(self, folder).files
        return [Blob(name, item.size, stamp=item.etag) for name, item in sorted(there.items())]

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
        """Return temporaries, drafts, and the uploads in parts that were not ended: ``x.ckpt?uploadId=...``."""
        listing = self._listed(depth + _WITHIN)
        uploads = (name for name, _ in unfinished(self.objects, self.base) if depth_of(name) <= depth)
        drafts = (name for left in remains(listing, partial(read_all, self)) for name in left.names)
        drafts = (name for name in drafts if name.count("/") <= depth + 1)
        return sorted({*(name for name, _ in self._temporaries(listing, depth)), *drafts, *uploads})

    @staticmethod
    def _temporaries(listing: Listing, depth: int) -> list[tuple[str, Listed]]:
        found = ((name, item) for name, item in listing if _is_temporary(name))
        return [(name, item) for name, item in found if name.count("/") <= depth or _hidden_at(name)]

    def _everything(self, depth: int) -> list[Blob]:
        return [Blob(name, item.size, stamp=item.etag) for name, item in self._listed(depth)]

    def _listed(self, depth: int) -> list[tuple[str, Listed]]:
        """List by name. Below the root without a limit: that is one request for a thousand, not one a folder."""
        start = len(self.base) + 1
        found = ((item.key[start:], item) for item in self.objects.list(f"{self.base}/", deep=depth > 0))
        near = ((name, item) for name, item in found if name and not name.endswith("/") and name.count("/") <= depth)
        named = [pair for pair in near if not has_dots(pair[0]) and "\0" not in pair[0]]  # others are no file's name
        return sorted(named, key=lambda pair: pair[0])

    def exists(self, name: str) -> bool:
        """Ask the remote side, past every cache: for the blob, and if there is none for a bundle of that name."""
        try:
            self._head(name)
        except FileNotFoundError:
            note_no_bundle(self, name)
            return False
        return True

    def _head(self, name: str) -> Head:
        """Look at a blob, or at a bundle's seal."""
        try:
            return self.objects.head(self.key(name))
        except FileNotFoundError:
            if not may_be_bundle(name) or name.endswith(f"/{SEAL}"):
                raise
            return self.objects.head(self.key(f"{name}/{SEAL}"))

    def size(self, name: str) -> int:
        """Ask the remote side; of a bundle, the sum of its files."""
        try:
            return self.objects.head(self.key(name)).size
        except FileNotFoundError:
            there = folder_at(self, name) if may_be_bundle(name) else None
            if there is None or there.seal is None:
                raise
            return sum(item.size for item in there.files.values())

    def stamp(self, name: str) -> tuple[int, ...] | None:
        """Return the size and the etag, as numbers; None where there are no etags, or nobody answers. One request."""
        try:
            head = self._head(name)
        except OSError:
            return None
        return stamp_of(Blob(name, head.size, stamp=head.etag))

    def claim(self, run: str, since: str) -> Claim:
        """Take the prefix for this process, before anything below it is touched: one run, one prefix.

        Waits for a run that seems to be dead, at most as long as its lease. See ``claims``.

        Raises:
            DirectoryInUseError: if a run that lives has it.
            OSError: if the server cannot be asked, or nothing can be written there.

        """
        return claim(self.objects, self.base, self.root, run=run, since=since)

    @property
    def is_claimed_here(self) -> bool:
        """Whether this very process has the prefix already. No request."""
        return claimed_here(self.base)

    def check_claim(self) -> None:
        """Before a commit: make sure that a claim of this process which covers the prefix still holds.

        Raises:
            DirectoryInUseError: if another run has taken it over.
            OSError: if that cannot be found out.

        """
        check_commit(f"{self.base}/")

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Read one range."""
        key = self.key(name)
        if length <= 0:
            return b""
        return self.objects.get(key, offset, offset + length)

    def read_into(self, name: str, offset: int, view: memoryview) -> int:
        """Read into memory, a large range by several requests side by side."""
        return read_into(self.objects, self.key(name), offset, view)

    def put(
        self,
        name: str,
        chunks: Chunks,
        *,
        over: str = "",
        gate: Callable[[], None] | None = None,
        size: int = 0,
    ) -> int:
        """Upload, check the length, and only then let the blob appear; not if another run has the prefix by now."""
        del over  # there is no writing over what is stored
        key, asked = self.key(name), self._gate(gate)
        written = upload_chunks(self.objects, key, chunks, gate=asked, size=size, again=self.check_claim).size
        end_bundle(self, name)
        return written

    def put_from(self, name: str, source: Source, **how: Unpack[Sending]) -> Head:
        """Upload a source as ``uploading.upload`` does, with its keywords, and the same care as ``put``.

        Returns what the server says of the blob.
        """
        how["gate"], how["again"] = self._gate(how.get("gate")), self.check_claim
        head = upload(self.objects, self.key(name), source, **how)
        end_bundle(self, name)
        return head

    def _gate(self, gate: Callable[[], None] | None) -> Callable[[], None]:
        def pass_gate() -> None:
            if gate is not None:
                gate()
            self.check_claim()

        return pass_gate

    def draft(self, name: str, mark: str = "") -> RemoteDraft:
        """Begin a bundle, whose files stand in its own folder from the beginning. No request."""
        return RemoteDraft(self, name, mark)

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

    def move_by_copy(self, name: str, target: str) -> None:
        """Give a blob another name in two steps; of what nobody counts on. See ``moving``.

        Raises:
            OSError: if it is not there, the server does not do it, or it was written anew meanwhile.

        """
        move_by_copy(self, name, target)

    def hold(self, name: str, *, alone: bool = False) -> contextlib.AbstractContextManager[bool]:
        """Hold nothing: a remote store has no locks."""
        del alone
        return contextlib.nullcontext(self.exists(name))

    def link(self, source: str, target: str) -> str:
        """Copy on the remote side: object stores have no second names."""
        self.check_claim()
        try:
            size = self.objects.head(self.key(source)).size
        except FileNotFoundError:
            link_bundle(self, source, target)
            return "copy"
        self.copy_in(self.key(source), target, size)
        return "copy"

    def copy_in(self, key: str, target: str, size: int) -> None:
        """Make an object of this server a blob of this store, by a copy on the server's side.

        Raises:
            DirectoryInUseError: if another run has the prefix by now.
            OSError: if the server does not do it, or the copy has not the size that it should have.

        """
        self.check_claim()
        self.objects.copy(key, self.key(target))
        self._check_length(target, self.objects.head(self.key(target)).size, size)
        end_bundle(self, target)

    def standing(self, name: str, endings: Collection[str] = ()) -> Standing:
        """Return what has a name, and which of the names with these endings are there. One request."""
        return stands(self, name, endings)

    def discard(self, name: str, endings: Collection[str] = (), known: Standing | None = None) -> None:
        """Remove what has a name, and the files of this name with these endings.

        One request that asks, unless it is ``known``, and one that removes; of a bundle its seal is removed before.
        """
        discard(self, name, endings, known)

    def remove(self, name: str) -> None:
        """Remove one blob. One request, and one that asks for a bundle where a name can be that of one."""
        if may_be_bundle(name):
            self.discard(name)
        else:
            self.objects.remove([self.key(name)])

    def free(self) -> Free | None:
        """Return None: no remote store says so."""
        return None

    def sweep(self, depth: int = 0) -> list[str]:
        """Remove temporaries, and abort uploads, that are dead for certain: begun before this process had the prefix.

        Without a claim, those a day old: whether a younger one's writer still lives cannot be told from here. What
        lies below a folder that another run has claimed is that run's to sweep.
        """
        listing = self._listed(depth + _WITHIN)
        others = claimed_below(name for name, _ in listing)
        listing = [pair for pair in listing if not pair[0].startswith(others)]
        found = self._temporaries(listing, depth)
        bundles = [pair for pair in listing if pair[0].count("/") <= depth + 1]  # what lies deeper may be another run's
        loose = any(mark_of(name) for name, _ in bundles)
        before = dead_before(self.objects, self.base) if found or loose else None
        dead = [name for name, item in found if before is not None and item.modified and item.modified < before]
        if dead:
            self.objects.remove([self.key(name) for name in dead])
        if loose:
            dead += sweep_bundles(self, bundles, before)
        return [*dead, *abort_dead(self.objects, self.base, depth, others)]


def _is_temporary(name: str) -> bool:
    return name.rpartition("/")[2].startswith(HIDDEN)


def _hidden_at(name: str) -> bool:
    """Tell whether a blob lies in a hidden folder."""
    return f"/{HIDDEN}" in f"/{name.rpartition('/')[0]}"
