"""What a directory knows of its mirrors without asking them: what was there when something was brought or removed last.

One small file for each mirror, in the hidden folder of the notes of uploads. It is for people who look, as ``ls`` does;
whoever is to decide anything asks the mirror.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from holdfast.mirroring.tickets import FOLDER
from holdfast.storage import Store, is_local

_FORMAT = 1
_LETTERS = 16
_ENDING = ".there"
_LONGEST = 1 << 24  # bytes that are read of a file: those of a hundred thousand names


@dataclass(frozen=True)
class Known:
    """What is known of one mirror.

    Attributes:
        url: where it is, without secrets.
        there: by the name here, what identifies the save that it has under that name.

    """

    url: str
    there: dict[str, str] = field(default_factory=dict)

    def has(self, name: str, identity: str) -> bool:
        """Tell whether the mirror had this very save when it was heard of last."""
        return bool(identity) and self.there.get(name) == identity


class Ledger:
    """Takes note of what a mirror has. For one thread of one process at a time; what cannot be written is not."""

    def __init__(self, here: Store, target: str) -> None:
        """Read nothing yet. Only a directory of this machine knows of its mirrors."""
        self._here, self._url = here, _without_secrets(target)
        self._file = f"{FOLDER}/{hashlib.sha256(target.encode()).hexdigest()[:_LETTERS]}{_ENDING}"

    def arrived(self, name: str, identity: str) -> None:
        """Note that the mirror has a save."""
        there = self._read()
        if identity and there.get(name) != identity:
            self._write({**there, name: identity})

    def gone(self, names: Collection[str]) -> None:
        """Note that the mirror has these no more."""
        there = self._read()
        if not there.keys().isdisjoint(names):
            self._write({name: said for name, said in there.items() if name not in names})

    def _read(self) -> dict[str, str]:
        found = _decoded(self._here, self._file) if self._here.is_local else None
        return {} if found is None else found.there

    def _write(self, there: dict[str, str]) -> None:
        if not self._here.is_local:
            return
        kept = {name: said for name, said in sorted(there.items()) if self._here.exists(name)}
        said = {"holdfast_mirror": _FORMAT, "url": self._url, "there": kept}
        with contextlib.suppress(OSError):  # a directory that may only be read
            self._here.put(self._file, [json.dumps(said, separators=(",", ":")).encode()])


def known_mirrors(here: Store, depth: int = 0) -> dict[str, list[Known]]:
    """Return what directories at most ``depth`` folders down know of their mirrors, by the folder: ``""``, ``"a/"``."""
    found: dict[str, list[Known]] = {}
    for file in _files(here, depth):
        known = _decoded(here, file)
        if known is not None:
            found.setdefault(file.rpartition(FOLDER)[0], []).append(known)
    return found


def _files(here: Store, depth: int) -> Iterable[str]:
    if not here.is_local:
        return []
    try:
        return [blob.name for blob in here.hidden(FOLDER, depth) if blob.name.endswith(_ENDING)]
    except OSError:
        return []


def _decoded(here: Store, file: str) -> Known | None:
    try:
        said = json.loads(here.read(file, 0, _LONGEST))
        if said["holdfast_mirror"] != _FORMAT:
            return None
        return Known(str(said["url"]), {str(name): str(identity) for name, identity in said["there"].items()})
    except (OSError, TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return None


def _without_secrets(url: str) -> str:
    if is_local(url):
        return url
    from holdfast.storage.remote.redaction import redacted  # noqa: PLC0415 - with fsspec: not for two directories

    return redacted(url)
