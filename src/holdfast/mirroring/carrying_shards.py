"""A sharded checkpoint on its way: file by file into a draft, each checked as it passes, and then committed as one.

A file that has arrived is noted, with what the server said of it. A later try sends those alone that the server has
not, or not as it had them then.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from holdfast.directories import Directory, check_names, check_pieces, mark_in, pieces_of
from holdfast.format.directory import MANIFEST_FILE, SHARD_SUFFIX
from holdfast.format.pieces import Piece, Pieces
from holdfast.mirroring.passing import passing_of
from holdfast.mirroring.sending import Parcel, Way, abandon, send, takes_parts
from holdfast.mirroring.tickets import Begun
from holdfast.records import Manifest, Record
from holdfast.storage import Store
from holdfast.storage.contract import Draft
from holdfast.storage.marks import mark_of


@dataclass(frozen=True)
class Sharded:
    """A sharded checkpoint that is to be sent.

    Attributes:
        name: at both ends.
        found: its directory, held open.
        manifest: its own.
        print: what identifies its content.
        still: whether the source has it still.
        gate: asked before it is committed; may raise.

    """

    name: str
    found: Directory
    manifest: Manifest
    print: str
    still: Callable[[], bool]
    gate: Callable[[], None]

    def pass_gate(self) -> None:
        """See that it may be committed."""
        if not self.still():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.found.path)
        self.gate()


def carry_sharded(way: Way, one: Sharded) -> None:
    """Commit a sharded checkpoint at the target: as a whole, and as its manifest says, or not at all.

    Raises:
        DamagedCheckpointError: if the source is not as it was saved.
        FileNotFoundError: if the source has it no more.
        InterruptedError: if it was stopped; a later try goes on with the files, and parts of files, that are there.
        OSError: if the source cannot be read, or the target cannot be written; likewise.

    """
    plans = [(record, pieces_of(one.found, record)) for record in one.manifest.records]  # what is quick to see
    check_names(way.target, one.name, one.manifest)
    abandon_files(way, one.name, but=one.print)
    draft = way.target.draft(one.name, mark_in(one.manifest))
    try:
        _send_all(way, one, draft, plans)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or way.notes is None:
            _give_up(way, one.name, draft)
        raise  # what is there and noted stays for the next try
    except BaseException:
        _give_up(way, one.name, draft)
        raise
    for noted in _noted(way, one.name):
        if way.notes is not None:
            way.notes.drop(noted.name)


def abandon_files(way: Way, name: str, *, but: str = "") -> None:
    """Give up what was begun of a sharded checkpoint, unless it is of the content ``but``.

    Raises:
        OSError: if the server does not do it.

    """
    for noted in _noted(way, name):
        if not but or not noted.print.startswith(f"{but} "):
            abandon(way, noted)


def abandon_drafts(target: Store, files: list[str]) -> None:
    """Remove what was sent of sharded checkpoints that will not be completed, unless a seal names it."""
    for folder, mark in sorted({(file.rpartition("/")[0], mark_of(file)) for file in files}):
        if folder and mark:
            target.draft(folder, mark).drop()


def spare_draft(file: str) -> None:
    """Have the sweeps of this process leave what was sent of a sharded checkpoint, of which this is a file."""
    from holdfast.storage.remote import bundles  # noqa: PLC0415 - with fsspec: not for two directories

    if mark := mark_of(file):
        bundles.begin(mark)


def _noted(way: Way, name: str) -> list[Begun]:
    """Return the notes of the files of a sharded checkpoint."""
    return [noted for noted in way.notes.all() if noted.name.startswith(f"{name}/")] if way.notes is not None else []


def _give_up(way: Way, name: str, draft: Draft) -> None:
    draft.drop()
    try:
        abandon_files(way, name)
    except OSError:  # the first error is the one to tell; the next start sees to the notes
        return


def _send_all(way: Way, one: Sharded, draft: Draft, plans: list[tuple[Record, list[Piece]]]) -> None:
    there = _there(way, one)
    for record, plan in plans:
        if not record.name.endswith(SHARD_SUFFIX):
            draft.add(record.name, _read(one, record, plan))
        elif record.name in there:
            way.progress(record.size)
        else:
            _send(way, one, f"{draft.folder}/{record.name}", record, plan)
    with one.found.opened(MANIFEST_FILE) as source:
        draft.add(MANIFEST_FILE, source.read(0, source.size))
    draft.settle({record.name: record.size for record, _ in plans if record.name.endswith(SHARD_SUFFIX)}, one.pass_gate)


def _there(way: Way, one: Sharded) -> set[str]:
    """Return the names of the files that the server has as they were when an earlier try had sent them."""
    whole = {noted.name: noted for noted in _noted(way, one.name) if noted.whole and noted.print.startswith(one.print)}
    blobs = way.target.files(one.name) if whole else []
    known = {blob.name: (blob.size, blob.stamp) for blob in blobs}
    names = {name.rpartition("/")[2]: noted for name, noted in whole.items()}
    return {name for name, noted in names.items() if known.get(name) == (noted.size, noted.whole)}


def _send(way: Way, one: Sharded, name: str, record: Record, plan: list[Piece]) -> None:
    check = partial(_Check, one.found, record, plan)
    with (
        one.found.opened(record.name) as source,
        passing_of(source, check, far=takes_parts(way.target)) as passing,
    ):
        said = f"{one.print} {record.name}"
        send(way, Parcel(name, passing, said, one.still))
        etag = _etag(way.target, name) if way.notes is not None else ""
        if etag and way.notes is not None:
            way.notes.keep(Begun(name, said, passing.size, "", 1, {}, {}, etag))


def _etag(target: Any, name: str) -> str:
    """Ask for the etag that listings will tell: the answer to a last part may have had another one. One request."""
    try:
        return str(target.objects.head(f"{target.base}/{name}").etag)
    except OSError:  # then it is sent again one day
        return ""


def _read(one: Sharded, record: Record, plan: list[Piece]) -> bytes:
    with one.found.opened(record.name) as source:
        data = source.read(0, source.size)
    pieces = Pieces(plan)
    pieces.take(0, memoryview(data))
    check_pieces(one.found, record, pieces)
    return data


class _Check:
    """Knows what each byte of a file must be."""

    def __init__(self, found: Directory, record: Record, plan: list[Piece]) -> None:
        self._found, self._record = found, record
        self._pieces = Pieces(plan)

    def take(self, offset: int, data: memoryview) -> None:
        self._pieces.take(offset, data)

    def finish(self) -> None:
        check_pieces(self._found, self._record, self._pieces)
