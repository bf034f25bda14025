"""What is on disk: read from the manifests inside the checkpoints, never from their names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from holdfast.directories import is_plain_directory, is_sealed, manifest_errors, stands_plain
from holdfast.errors import DamagedCheckpointError, NewerFormatError
from holdfast.format import directory, reading
from holdfast.format.signature import SUFFIX
from holdfast.records import LAST, Facts
from holdfast.source import TailSource, each, read_end
from holdfast.storage import Blob, Store
from holdfast.storage.standing import Standing, standing

EXTENSION = ".ckpt"
_ASIDE = ".damaged"  # behind the name of a checkpoint that was found damaged and kept for people to look at
_IS_ASIDE = re.compile(re.escape(_ASIDE) + r"(-\d+)?$")
_GUESS = 1 << 14  # bytes in which facts and records of most directories fit
_BEGINNING = 64  # bytes that are zeros in no file of any kind, but in one that a power cut has emptied
_LEAST = 4  # bytes in which the beginning of a file of any kind can be told


@dataclass(frozen=True)
class Found:
    """A checkpoint in a directory: a file, or a directory of its own if it is sharded.

    Attributes:
        name: relative to the directory.
        path: as other programs take it.
        size: in bytes; of a sharded one as its manifest says.
        facts: what its manifest says; None for one that was saved without a manifest.
        problem: why its manifest cannot be read, or "".
        damaged: whether that is so because its bytes are not those that were saved.
        file_id: the same for two names that share their bytes; "" where that cannot be told.
        sharded: whether it is a directory: one of ours, or (without facts) a plain one of
            ``torch.distributed.checkpoint``.
        stamp: another one when the content is: an object's etag; "" where a listing does not tell.

    """

    name: str
    path: str
    size: int
    facts: Facts | None = None
    problem: str = ""
    damaged: bool = False
    file_id: str = ""
    sharded: bool = False
    stamp: str = ""

    @property
    def role(self) -> str | None:
        """What this file is to its run, or None for one that was renamed or copied by hand."""
        names = self.facts.names if self.facts is not None else {}
        return next((role for role, name in names.items() if name == self.name), None)


@dataclass(frozen=True)
class Survey:
    """What a directory holds.

    Attributes:
        found: the checkpoints, sorted by name; also what is called like one and is no file, and the folders that
            may not be read, each with its problem.
        aside: the names of the damaged checkpoints that were set aside.

    """

    found: list[Found]
    aside: list[str]


def scan(store: Store, *, extension: str | None = EXTENSION, depth: int = 0) -> list[Found]:
    """Return the checkpoints, files and directories, at most ``depth`` folders down, sorted by name.

    With an extension of None: all that have a manifest, whatever they are called (of files in a remote
    store only ``.ckpt``, to spare requests), all ``.ckpt``, and the directories that plain
    ``torch.distributed.checkpoint`` has made and that lie wholly within this depth. Those that were set aside
    are none, and neither are signatures (``.sig``).

    Reads the beginning of each manifest, not the data: use ``engine.verify`` to know
    whether a file is whole.
    """
    return _look_at(store, store.blobs(depth), extension)


def survey(store: Store, *, depth: int = 0, unread: bool = False) -> Survey:
    """Return what a directory holds, as ``scan`` does with an extension of None; nothing in it is an error.

    ``unread``: for those who are about to read them whole, remote files have neither facts nor problems.
    """
    odd: dict[str, str] = {}
    return survey_of(store, store.blobs(depth, odd), odd, unread=unread)


def survey_of(store: Store, blobs: Sequence[Blob], odd: Mapping[str, str], *, unread: bool = False) -> Survey:
    """Return what a directory holds, of which this is the listing; as ``survey``."""
    found = _look_at(store, blobs, None, unread=unread and not store.is_local)
    for name, problem in odd.items():
        if name.endswith(EXTENSION) or (
            store.is_local and os.path.isdir(store.path(name)) and not os.path.islink(store.path(name))
        ):
            found.append(Found(name, store.path(name), 0, problem=problem))
    return Survey(sorted(found, key=lambda item: item.name), [blob.name for blob in blobs if _is_aside(blob.name)])


def _look_at(store: Store, blobs: Iterable[Blob], extension: str | None, *, unread: bool = False) -> list[Found]:
    ending = extension if extension is not None else "" if store.is_local else EXTENSION
    blobs = list(blobs)
    plain = _plain_directories(store, blobs) if extension is None else {}
    every = extension is None  # of directories, which are told apart without a request, also in a remote store
    chosen = (blob for blob in blobs if _counts(blob.name, "" if every and blob.bundle else ending))
    wanted = [blob for blob in chosen if blob.name.rpartition("/")[0] not in plain]
    asked = [blob for blob in wanted if blob.bundle or not unread]
    found = [*each(store.is_local, asked, lambda blob: _look(store, blob))]
    if unread:
        found += [_unread(store, blob) for blob in wanted if not blob.bundle]
    there = [item for item in found if item is not None]
    there = [item for item in there if extension is not None or item.facts or item.name.endswith(EXTENSION)]
    return sorted((*there, *plain.values()), key=lambda item: item.name) if plain or unread else there


def _unread(store: Store, blob: Blob) -> Found:
    return Found(blob.name, store.path(blob.name), blob.size, file_id=blob.file_id, stamp=blob.stamp)


def _plain_directories(store: Store, blobs: Iterable[Blob]) -> dict[str, Found]:
    """Return, by name, the folders below that have the files of a checkpoint and no manifest."""
    inside: dict[str, list[Blob]] = {}
    named = {blob.name.rpartition("/")[0] for blob in blobs if blob.name.endswith(f"/{directory.METADATA_FILE}")}
    for blob in blobs if named else ():
        folder = blob.name.rpartition("/")[0]
        if folder in named:
            inside.setdefault(folder, []).append(blob)
    return {
        folder: Found(folder, store.path(folder), sum(blob.size for blob in files), sharded=True)
        for folder, files in inside.items()
        if any(blob.name.endswith(directory.SHARD_SUFFIX) for blob in files) and not _is_aside(folder)
    }


def _counts(name: str, ending: str) -> bool:
    return name.endswith(ending) and not name.endswith(SUFFIX) and not _is_aside(name)


def _is_aside(name: str) -> bool:
    return name_before(name) != name


def scan_aside(store: Store, *, depth: int = 0) -> list[str]:
    """Return the names of the damaged checkpoints that were set aside, at most ``depth`` folders down."""
    return [blob.name for blob in store.blobs(depth) if _is_aside(blob.name)]


def names_aside(name: str) -> Iterator[str]:
    """Yield the names under which a damaged checkpoint may be set aside."""
    yield name + _ASIDE
    yield from (f"{name}{_ASIDE}-{number}" for number in count(2))


def name_before(name: str) -> str:
    """Return the name that a file had before it was set aside; its own if it was not."""
    return _IS_ASIDE.sub("", name)


def look(store: Store, name: str, there: Standing | None = None) -> Found:
    """Return what one checkpoint says of itself; a missing one has a problem. ``there``: what stands there."""
    try:
        found = _look_here(store, name) if store.is_local else _look_there(store, there or standing(store, name))
    except OSError as error:
        return Found(name, store.path(name), 0, problem=error.strerror or str(error))
    return found or Found(name, store.path(name), 0, problem="it has just been removed")


def _look_here(store: Store, name: str) -> Found | None:
    if is_plain_directory(store, name):
        return Found(name, store.path(name), store.size(name), sharded=True)
    sealed = is_sealed(store, name)
    return _look(store, Blob(name, store.size(f"{name}/{directory.MANIFEST_FILE}" if sealed else name), bundle=sealed))


def _look_there(store: Store, there: Standing) -> Found | None:
    if stands_plain(there):
        return Found(there.name, store.path(there.name), sum(file.size for file in there.files), sharded=True)
    if there.blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), store.path(there.name))
    return _look(store, there.blob)


def _look(store: Store, blob: Blob) -> Found | None:
    """Look twice where a read fails: a file that is left out is unranked, and unpruned, for a whole run.

    Returns None if it has been removed since it was listed.
    """
    try:
        said = _said(store, blob)
    except OSError:
        try:
            said = _said(store, blob)
        except FileNotFoundError:
            return None
        except OSError as error:
            said = _Said(problem=error.strerror or str(error))
    return Found(
        blob.name,
        store.path(blob.name),
        blob.size if said.size is None else said.size,
        said.facts,
        said.problem,
        said.damaged,
        blob.file_id,
        blob.bundle,
        blob.stamp,
    )


class _Said(NamedTuple):
    """What a checkpoint says of itself, what is wrong with it, whether that is damage, and its bytes if it says so."""

    facts: Facts | None = None
    problem: str = ""
    damaged: bool = False
    size: int | None = None


def _said(store: Store, blob: Blob) -> _Said:
    try:
        if blob.bundle:
            return _said_by_directory(store, blob)
        return _Said(*_said_by_file(store, blob))
    except DamagedCheckpointError as error:
        return _Said(problem=f"{error.record}: {error.problem}", damaged=True, size=_whole_size(store, blob))
    except NewerFormatError as error:
        return _Said(problem=error.problem, size=_whole_size(store, blob))


def _whole_size(store: Store, blob: Blob) -> int | None:
    return store.size(blob.name) if blob.bundle else None


def _said_by_directory(store: Store, blob: Blob) -> _Said:
    """Read as much of the manifest's file as has the facts and the records: the sizes of all files."""
    length = min(_GUESS, blob.size)
    with manifest_errors(store.path(blob.name)):
        while True:
            data = store.read(f"{blob.name}/{directory.MANIFEST_FILE}", 0, length)
            found = directory.decode_beginning(data)
            if found is not None:
                return _Said(found[0], size=found[1] + blob.size)
            if length >= blob.size:
                problem = "it is empty" if not data else "it is cut off"
                raise directory.ManifestError(problem)
            length = min(length * 8, blob.size)


def _said_by_file(store: Store, blob: Blob) -> tuple[Facts | None, str, bool]:
    size = blob.size
    if size == 0:
        return None, "the file: it is empty", True
    source = TailSource(store, blob.name, size, blob.stamp)
    facts = read_end(source, reading.read_facts)
    blank = facts is None and not source.read(0, _BEGINNING).strip(b"\0")
    if blank or size < _LEAST:
        return None, "the file: nothing of it was ever written, or only its beginning is left", True
    return facts, "", False


def newest_first(found: Iterable[Found]) -> list[Found]:
    """Order checkpoints that have facts, newest first.

    Within a run by the sequence of its saves, which all callbacks of a training share; among runs by
    the time of each run's newest save. The modification times of the files do not matter: they change
    when a run is copied.
    """
    known = [(item, item.facts) for item in found if item.facts is not None]
    latest: dict[str, str] = {}
    for _, facts in known:
        latest[facts.run] = max(latest.get(facts.run, ""), facts.time)
    known.sort(
        key=lambda pair: (latest[pair[1].run], pair[1].run, pair[1].sequence, pair[0].role == LAST, pair[0].name)
    )
    return [item for item, _ in reversed(known)]


def resumable(found: Iterable[Found]) -> Iterator[Found]:
    """Yield the checkpoints that training can resume from, newest first."""
    return (item for item in newest_first(found) if item.facts is not None and not item.facts.weights_only)
