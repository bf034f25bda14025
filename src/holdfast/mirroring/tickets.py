"""Notes of uploads that are not over, beside the checkpoints: with them another process goes on where one stopped.

Each is one small file in a hidden folder of the local directory::

    <directory>/.holdfast-mirror/<target><name>.json

Nothing in it is trusted: the parts are those that the server says it has, and all bytes are checked before they
become a checkpoint. A URL may have a secret in it, so that only a digest of it is written. One process at a time has
the notes of a target; another one that brings checkpoints to it meanwhile does so without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

from holdfast.storage import HIDDEN, Store
from holdfast.storage.locks import close, lock_for_life, unlock

FOLDER = f"{HIDDEN}mirror"

_FORMAT = 1
_LETTERS = 16  # of each digest in a file's name
_LONGEST = 1 << 21  # bytes that are read of a file: those of ten thousand parts fit
_OFTEN = 64  # parts that are noted one by one
_SELDOM = 16  # parts between two notes of a larger number
_MALFORMED = (TypeError, ValueError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Begun:
    """An upload that was begun.

    Attributes:
        name: of the blob.
        print: what identifies its content.
        size: its bytes.
        upload: the upload's id.
        part_size: bytes of each part but the last.
        etags: those of the parts that the server has, by their numbers from 1.
        crcs: the CRC-32 of those parts.
        whole: the etag of the blob, once it is complete and only waits for others of its checkpoint; then there is no
            ``upload``.

    """

    name: str
    print: str
    size: int
    upload: str
    part_size: int
    etags: dict[int, str]
    crcs: dict[int, int]
    whole: str = ""


class Tickets:
    """The notes of the uploads from one directory of this machine to one target. For one thread at a time."""

    def __init__(self, store: Store, target: str) -> None:
        """Look at nothing yet."""
        self._store = store
        self._target = _digest(target)
        self._lock: int | None = None

    def own(self) -> bool:
        """Take the notes for this process, until ``give_up``; False while another one has them, or none can be made."""
        if self._lock is None:
            path = self._store.path(f"{FOLDER}/{self._target}.lock")
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                made = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
            except OSError:  # a directory that may only be read
                return False
            if not lock_for_life(made):
                close(made)
                return False
            self._lock = made
        return True

    def give_up(self) -> None:
        """Leave the notes to others, and the folder as it was found, if nothing is noted."""
        lock, self._lock = self._lock, None  # in one step: the end of a run and its thread's own may meet here
        if lock is None:
            return
        with contextlib.suppress(OSError):
            os.unlink(self._store.path(f"{FOLDER}/{self._target}.lock"))
            os.rmdir(self._store.path(FOLDER))
        unlock(lock)
        close(lock)

    def find(self, name: str) -> Begun | None:
        """Return the upload of a blob that was begun; None if there is none that can be read."""
        return self._read(self._file(name))

    def keep(self, begun: Begun) -> None:
        """Take note of an upload, or of further parts. What cannot be written is not: then it begins anew one day.

        Of very many parts not each is noted: those that are not are told by their content, or sent again.
        """
        many = len(begun.etags)
        if many > _OFTEN and many % _SELDOM:
            return
        said = {
            "holdfast_mirror": _FORMAT,
            "name": begun.name,
            "print": begun.print,
            "size": begun.size,
            "upload": begun.upload,
            "part_size": begun.part_size,
            "etags": begun.etags,
            "crcs": begun.crcs,
            "whole": begun.whole,
        }
        with contextlib.suppress(OSError):  # a directory that may only be read
            self._store.put(self._file(begun.name), [json.dumps(said, separators=(",", ":")).encode()])

    def drop(self, name: str) -> None:
        """Forget the upload of a blob: it is complete, or aborted."""
        with contextlib.suppress(OSError):  # it is dead: whoever reads it finds no upload
            self._store.remove(self._file(name))

    def all(self) -> list[Begun]:
        """Return all uploads to the target that were begun."""
        try:
            blobs = self._store.hidden(FOLDER)
        except OSError:
            return []
        files = [blob.name for blob in blobs if blob.name.startswith(f"{FOLDER}/{self._target}")]
        found = (self._read(name) for name in files if name.endswith(".json"))
        return [begun for begun in found if begun is not None]

    def _file(self, name: str) -> str:
        return f"{FOLDER}/{self._target}{_digest(name)}.json"

    def _read(self, file: str) -> Begun | None:
        try:
            return _begun(json.loads(self._store.read(file, 0, _LONGEST)))
        except (OSError, *_MALFORMED):
            return None


def _begun(said: Any) -> Begun | None:
    if said["holdfast_mirror"] != _FORMAT:
        return None
    etags = {int(number): str(etag) for number, etag in said["etags"].items()}
    crcs = {int(number): int(crc) for number, crc in said["crcs"].items()}
    part_size = int(said["part_size"])
    if part_size <= 0:
        return None
    names = (str(said["name"]), str(said["print"]))
    whole = str(said.get("whole", ""))
    return Begun(*names, int(said["size"]), str(said["upload"]), part_size, etags, crcs, whole)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_LETTERS]
