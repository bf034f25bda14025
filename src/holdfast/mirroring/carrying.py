"""One checkpoint from a store to another: what is there already stays, what is there under another name is copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast import notes
from holdfast.directories import Directory, is_sealed, with_directory
from holdfast.errors import DamagedCheckpointError, SaveError, printable
from holdfast.format.directory import MANIFEST_FILE
from holdfast.format.signature import LONGEST, SUFFIX
from holdfast.mirroring.beside import copied_beside
from holdfast.mirroring.carrying_shards import Sharded, abandon_drafts, abandon_files, carry_sharded, spare_draft
from holdfast.mirroring.known import Ledger
from holdfast.mirroring.likeness import Likeness, likeness_of, look_at
from holdfast.mirroring.passing import Bytes, Passing, check_of, opened, passing_of
from holdfast.mirroring.sending import Parcel, Way, abandon, abandon_named, send, spare, takes_parts
from holdfast.records import Facts, Manifest
from holdfast.storage import Store

COPIED, LINKED, SKIPPED, GONE = "copied", "linked", "skipped", "gone"


class OccupiedError(SaveError):
    """Another checkpoint has the name at the target, and is not given up for this one."""


@dataclass(frozen=True)
class Carried:
    """What became of a checkpoint.

    Attributes:
        name: its.
        how: ``COPIED``, ``LINKED`` (the target had it under another name), ``SKIPPED`` (it was there) or ``GONE``
            (the source has it no more).
        size: its bytes.

    """

    name: str
    how: str
    size: int = 0


class Carrier:
    """Carries checkpoints from a store to another, with what is said of them, and their signatures. For one thread.

    Args:
        source: where they are.
        way: how they are sent, and where to.
        gate: asked before each commit; if it raises, nothing is committed.
        force: write over whatever has the name.
        dry_run: only say what would be done.

    Attributes:
        known: takes note of what the target has, for those who look at the source.

    """

    def __init__(
        self,
        source: Store,
        way: Way,
        *,
        gate: Callable[[], None] = lambda: None,
        force: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Know nothing of the target yet."""
        self._source = source
        self._way = way
        self._gate = gate
        self._force = force
        self._dry_run = dry_run
        self.known = Ledger(source, way.target.root)
        self._places: dict[str, str] = {}  # by what identifies a content: a name that has it at the target

    @property
    def target(self) -> Store:
        """Where they go."""
        return self._way.target

    def tidy(self) -> None:
        """Give up the uploads that nobody goes on with: of checkpoints that the source has no more. Not in a dry run.

        Raises:
            OSError: if the target does not do it.

        """
        tickets = None if self._dry_run else self._way.notes
        noted = tickets.all() if tickets is not None else []
        gone = [begun for begun in noted if not self._source.exists(begun.name)]
        for begun in noted:
            if begun not in gone:
                spare([begun.upload] if begun.upload else [])
                spare_draft(begun.name)
        abandon_drafts(self.target, [begun.name for begun in gone])
        for begun in gone:
            abandon(self._way, begun)

    def close(self) -> None:
        """Leave the notes of unfinished uploads to others."""
        if self._way.tickets is not None:
            self._way.tickets.give_up()

    def carry(self, name: str) -> Carried:
        """Bring one checkpoint to the target: on return it is committed there, with its notes and its signature.

        Raises:
            DamagedCheckpointError: if it is not as it was saved: nothing of it is at the target.
            NewerFormatError: if a later holdfast wrote it.
            OccupiedError: if another checkpoint has its name there, of another run or a newer one.
            InterruptedError: if it was stopped.
            OSError: if the source cannot be read or the target does not do what it is asked for.

        """
        try:
            if is_sealed(self._source, name):
                return with_directory(self._source.path(name), lambda found: self._carry_directory(name, found))
            with self._source.hold(name), opened(self._source, name) as source:
                return self._carry_file(name, source)
        except FileNotFoundError:
            if self._source.exists(name):
                raise
        except DamagedCheckpointError:
            if self._source.exists(name):
                raise
        return Carried(name, GONE)

    def _carry_file(self, name: str, source: Bytes) -> Carried:
        account, check = check_of(source)
        manifest = None if account is None else account.manifest
        mine = Likeness(size=source.size) if manifest is None else likeness_of(manifest, source.size)

        def bring() -> None:
            with passing_of(source, check, far=takes_parts(self.target)) as passing:
                parcel = Parcel(name, passing, mine.print, lambda: self._source.exists(name), self._gate)
                if not copied_beside(self._way, self._source, parcel):
                    send(self._way, parcel)

        return self._bring(name, mine, manifest, bring, source)

    def _carry_directory(self, name: str, found: Directory) -> Carried:
        manifest = found.manifest()
        if manifest is None:
            raise found.damaged(MANIFEST_FILE, "it is missing")
        mine = likeness_of(manifest, sum(record.size for record in manifest.records))
        known = manifest

        def bring() -> None:
            still = lambda: self._source.exists(name)  # noqa: E731 - a question
            carry_sharded(self._way, Sharded(name, found, known, mine.print, still, self._gate))

        return self._bring(name, mine, manifest, bring)

    def _bring(
        self,
        name: str,
        mine: Likeness,
        manifest: Manifest | None,
        bring: Callable[[], None],
        source: Bytes | None = None,
    ) -> Carried:
        """Find out what is to be done, and do it."""
        how = SKIPPED if self._is_there(name, mine, source) else self._other_way(name, mine)
        if not self._dry_run:
            with self._accompanied(name, None if manifest is None else manifest.facts):
                if how == LINKED:
                    self._gate()
                    self.target.link(self._places[mine.print], name)
                elif how == COPIED:
                    bring()
                if how != COPIED:  # what was begun is needed no more
                    abandon_named(self._way, name)
                    abandon_files(self._way, name)
            if manifest is not None:
                self.known.arrived(name, notes.identity(manifest.facts))
            if mine.print:
                self._places[mine.print] = name
        return Carried(name, how, mine.size)

    def _is_there(self, name: str, mine: Likeness, source: Bytes | None) -> bool:
        """Tell whether the target has this checkpoint under its name.

        Raises:
            OccupiedError: if another one has the name.

        """
        there = look_at(self.target, name)
        if there is not None and there.problem:  # what comes wrong once may be right, and then it is not written over
            there = look_at(self.target, name)
        if there is None:
            return False
        same = (there.print, there.size, there.problem) == (mine.print, mine.size, "")
        if same and (mine.print or (source is not None and self._same_bytes(name, source))):
            return True
        if self._force or (mine.may_replace(there, name) and not self._is_pinned(name, there)):
            return False
        raise _occupied(self.target.path(name), mine, there, pinned=mine.may_replace(there, name))

    def _is_pinned(self, name: str, there: Likeness) -> bool:
        """Tell whether somebody asked that what has the name there be kept. A ``last`` moves on, as everywhere."""
        if there.facts is None or there.is_last(name):
            return False
        said = notes.read_one(self.target, notes.folders_of(name, there.facts), notes.identity(there.facts))
        return said.pinned

    def _other_way(self, name: str, mine: Likeness) -> str:
        """Tell how the target can get a checkpoint: as a copy of what it has, or by bringing it there."""
        other = self._places.get(mine.print, name)
        if other == name or look_at(self.target, other) != mine:
            return COPIED
        return LINKED

    def _same_bytes(self, name: str, source: Bytes) -> bool:
        with opened(self.target, name) as other:
            ours, theirs = Passing(source, None), Passing(other, None)
            return all(one == two for one, two in zip(ours.blocks(), theirs.blocks(), strict=True))

    @contextmanager
    def _accompanied(self, name: str, facts: Facts | None) -> Iterator[None]:
        """Bring what is said of a checkpoint before it, and its signature behind it."""
        if facts is not None:
            self._carry_notes(notes.identity(facts), notes.folders_of(name, facts))
        signature = self._signature(self._source, name)
        if signature != (there := self._signature(self.target, name)) and there:
            self.target.remove(name + SUFFIX)
        yield
        if signature and signature != there:
            self.target.put(name + SUFFIX, [signature])

    def _signature(self, store: Store, name: str) -> bytes:
        try:
            return store.read(name + SUFFIX, 0, LONGEST)
        except FileNotFoundError:
            return b""

    def _carry_notes(self, identity: str, folders: tuple[str, ...]) -> None:
        for folder in folders if identity else ():
            home = f"{folder}{notes.FOLDER}/{identity}"
            blobs = [blob for blob in self._source.hidden(home) if blob.size >= 0]
            there = {blob.name for blob in self.target.hidden(home)} if blobs else set()
            for blob in blobs:
                if blob.name not in there:
                    self.target.put(blob.name, [self._source.read(blob.name, 0, blob.size)])


def _occupied(path: str, mine: Likeness, there: Likeness, *, pinned: bool) -> OccupiedError:
    if there.newer:
        what = "a checkpoint that a later holdfast wrote"
        cure = "Bring this one there with that version"
    elif pinned:
        what = "a checkpoint that is pinned there"
        cure = "Take the pin away there (holdfast unpin), or write over it by hand (holdfast sync --force)"
    elif mine.run and mine.run == there.run:
        newer = there.sequence > mine.sequence
        what = "a newer checkpoint of the same run" if newer else "what another branch of the same run had saved"
        cure = "If what is here is to count, write over it by hand (holdfast sync --force)"
    else:
        what = "another run's checkpoint, or one that does not say whose it is,"
        cure = "Give each run a place of its own"
    msg = f"{printable(path)} was not written: {what} has this name there, and was left. {cure}"
    return OccupiedError(msg, path=path)
