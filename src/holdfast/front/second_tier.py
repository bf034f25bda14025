"""The mirror as a place to resume from: what it has, asked once; and what of it is brought into the local directory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from holdfast import notes
from holdfast.errors import LoadError, printable
from holdfast.front.fetching import fetch, fetch_notes
from holdfast.front.progress import shown
from holdfast.policy import tiers
from holdfast.records import LAST, Facts
from holdfast.scanning import Found, look, scan
from holdfast.storage import Store, open_store
from holdfast.telling import warn

log = logging.getLogger("holdfast")


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that training may resume from, and where it lies.

    Attributes:
        found: the checkpoint.
        tier: ``"local"`` or ``"mirror"``.
        elsewhere: the URL of the same save on the mirror; "" if it has none.

    """

    found: Found
    tier: str = tiers.LOCAL
    elsewhere: str = ""

    @property
    def is_far(self) -> bool:
        """Whether only its copy on the mirror is meant."""
        return self.tier == tiers.MIRROR


@dataclass
class SecondTier:
    """What a mirror has of a run.

    Attributes:
        url: the mirror.
        here: the local directory.
        problem: why it could not be asked, or not all of it; "" if it could.

    """

    url: str
    here: Store
    problem: str = ""
    _found: list[Found] | None = None
    _noted: bool = False
    _far: Store | None = field(default=None, repr=False)

    @property
    def far(self) -> Store:
        """The mirror's store."""
        if self._far is None:
            self._far = open_store(self.url)
        return self._far

    def look(self, extension: str, depth: int) -> list[Found]:
        """Return what is on the mirror; nothing if it cannot be asked, which is warned of. Asked once."""
        if self._found is None:
            self._found = []
            try:
                self._found = scan(self.far, extension=extension, depth=depth)
            except OSError as error:
                self._tell(str(error))
            for item in self._found:
                if item.problem and not item.damaged:
                    self._tell(f"{item.path}: {item.problem}")
        return self._found

    def _tell(self, problem: str) -> None:
        if not self.problem:
            warn(printable(f"the mirror {self.url} could not be asked for its checkpoints: {problem}"))
        self.problem = self.problem or problem

    def candidates(self, local: Iterable[Found]) -> list[Candidate]:
        """Return the checkpoints of both tiers that have facts, newest first; a near copy before a far one."""
        near = [item for item in local if item.facts is not None]
        far = [item for item in self._found or [] if item.facts is not None]
        there = {_identity(item): item.path for item in far if _identity(item)}
        known = {
            **{(tiers.MIRROR, item.name): Candidate(item, tiers.MIRROR, item.path) for item in far},
            **{(tiers.LOCAL, item.name): Candidate(item, elsewhere=there.get(_identity(item), "")) for item in near},
        }
        copies = [_copy(one) for one in known.values()]
        return [known[copy.tier, copy.name] for copy in tiers.newest_first(copies)]

    def other_branch(self, chosen: Candidate, candidates: Iterable[Candidate], cure: str) -> str:
        """Say that the run has come further in one tier, and has gone on elsewhere in the other; "" if it has not.

        Args:
            chosen: what training goes on from.
            candidates: all there are.
            cure: how the user goes on from the other one, with ``{!r}`` for its path.

        """
        known = {_copy(one): one for one in candidates}
        later = tiers.later_branch(_copy(chosen), known)
        other = None if later is None else known[later].found
        if other is None or other.facts is None:
            return ""
        return (
            f". It has come further than {printable(other.path)} (step {other.facts.step}), which a branch that had "
            f"gone back saved later: {cure.format(other.path)} goes on from that"
        )

    def beyond(self, local: Sequence[Found]) -> list[Found]:
        """Return the checkpoints that only the mirror has, under names that are free here."""
        copies = [_copy(one) for one in self.candidates(local)]
        names = {copy.name for copy in tiers.only_there(copies, {item.name for item in local})}
        return [item for item in self._found or [] if item.name in names]

    def copied(self, extension: str, depth: int) -> set[str]:
        """Return the names here whose very save the mirror has under the same name; so far as it could be asked."""
        far = {(item.name, _identity(item)) for item in self.look(extension, depth)}
        here = scan(self.here, extension=extension, depth=depth)
        return {item.name for item in here if _identity(item) and (item.name, _identity(item)) in far}

    def bring(self, item: Found) -> Found:
        """Fetch a checkpoint of the mirror, after what is said of it; return what is here then.

        In this order, as a process that dies between the two leaves a checkpoint that the next one does not fetch.

        Raises:
            DamagedCheckpointError: if the mirror's bytes are not those that were saved.
            FileNotFoundError: if it is no longer there.
            LoadError: if it cannot be fetched now.

        """
        log.info("fetching %s into %s", printable(item.path), self.here.root)
        if not self._noted:
            self._noted = True
            fetch_notes(self.far, self.here)
        with shown(item.size, f"fetching {printable(item.name)}") as advance:
            name = fetch(item, self.far, self.here, advance)
        self._link_others(item, name)
        return look(self.here, name)

    def _link_others(self, item: Found, name: str) -> None:
        """Give what was fetched the other names that its save has there, where they are free: they cost nothing."""
        for other in self._found or []:
            if _identity(other) and _identity(other) == _identity(item) and self._is_free(other):
                try:
                    self.here.link(name, other.name)
                except OSError as error:  # it is ranked by its place there
                    log.info("%s has no second name %s here: %s", name, other.name, error)

    def _is_free(self, other: Found) -> bool:
        """Tell whether a name may be taken here. An earlier ``last`` gives way if its save has a place of its own."""
        if not self.here.exists(other.name):
            return True
        if other.role != LAST:
            return False
        mine = _identity(look(self.here, other.name))
        found = scan(self.here, extension=os.path.splitext(other.name)[1], depth=other.name.count("/"))
        return bool(mine) and any(_identity(one) == mine and one.name != other.name for one in found)

    def check_may_begin_afresh(self) -> None:
        """See that a run which has found nothing may start from nothing.

        Raises:
            LoadError: if the mirror could not be asked.

        """
        if tiers.may_begin_afresh(asked=not self.problem):
            return
        msg = (
            f"there is nothing whole to resume from in {self.here.root}, and the mirror {self.url} could not be asked "
            f"for its checkpoints: {self.problem}. To begin at step 0 now might be to lose what is there, so nothing "
            "was begun. Begin again once it answers; or without `mirror`, if this run is to begin afresh"
        )
        raise LoadError(printable(msg))


def _copy(one: Candidate) -> tiers.Copy:
    facts = one.found.facts or Facts()
    last = one.found.role == LAST
    identity = notes.identity(facts)
    return tiers.Copy(one.tier, one.found.name, facts.run, facts.sequence, facts.time, last, identity)


def _identity(item: Found) -> str:
    return notes.identity(item.facts or Facts())
