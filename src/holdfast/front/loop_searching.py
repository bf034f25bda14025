"""All ranks look for the newest checkpoint that is whole: rank 0 says which is next, each reads what it needs of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch

from holdfast.engine import load
from holdfast.engine.globals import globals_of
from holdfast.errors import DamagedCheckpointError, HoldfastError, LoadError, RankError
from holdfast.front.loop_sharded import filled, place_for, spread
from holdfast.front.loop_state import Parts, collect, living
from holdfast.front.opening import Into, load_into, verify
from holdfast.front.passing import PassingOver
from holdfast.front.second_tier import Candidate, SecondTier
from holdfast.policy.tiers import LOCAL
from holdfast.ranks import Ranks
from holdfast.scanning import Found, newest_first
from holdfast.snapshot import is_sharded
from holdfast.storage import is_local

T = TypeVar("T")

_Error = HoldfastError | OSError


class _Next(NamedTuple):
    """A checkpoint that is to be tried, and whether nothing older is left to fall back on.

    ``elsewhere`` is its URL on the mirror, for ranks that do not see it here; "" if it has none.
    """

    path: str
    in_shards: bool
    careful: bool
    elsewhere: str = ""

    @property
    def seen(self) -> str:
        """Where this very rank finds it."""
        return self.elsewhere if self.elsewhere and not os.path.exists(self.path) else self.path


def jointly(ranks: Ranks, do: Callable[[], T], at: str) -> T:
    """Do something on every rank, and return this rank's result once all have done it.

    Raises:
        HoldfastError: the first one of any rank, the same on all; or a RankError that names it.
        OSError: likewise.

    """
    mine: Any = None
    problem: _Error | None = None
    try:
        mine = do()
    except (HoldfastError, OSError) as error:
        problem = error
    except Exception as error:
        problem = RankError(f"rank {ranks.rank} failed at {at}: {type(error).__name__}: {error}", rank=ranks.rank)
        if ranks.alone:
            raise
    first = next((one for one in ranks.exchange(problem, at=at) if one is not None), None)
    if first is not None:
        raise first
    result: T = mine
    return result


@dataclass
class Reading:
    """How the ranks read a checkpoint, over the tensors that they have.

    Attributes:
        parts: the objects that have a state.
        ranks: who else is there.
        allow: further classes and functions that the safe loader may use.
        touched: whether any rank may have written over a living tensor since ``read`` was called last.

    """

    parts: Parts
    ranks: Ranks
    allow: Sequence[Any] = ()
    touched: bool = False

    def __post_init__(self) -> None:
        """Look at what lives here."""
        self._live = collect(self.parts, weights_only=False, loop={})
        self._over: Mapping[str, torch.Tensor] = living(self.parts, self._live)
        self._allowed = [*self.allow, *globals_of([self._live])]
        self._cut = bool(self.ranks.highest([int(is_sharded(self._live))])[0])

    def read(self, path: str, *, in_shards: bool, careful: bool, seen: str = "") -> dict[str, Any]:
        """Return the state of a checkpoint, for this rank. Every rank calls it.

        Args:
            path: where it lies.
            in_shards: whether it is a directory.
            careful: write over living tensors only what is known to be whole.
            seen: where this very rank finds it, if that is another place.

        Raises:
            LoadError: on every rank, if it failed on any.
            OSError: likewise.

        """
        self.touched = False
        if in_shards:
            return self._read_shards(path, seen or path, careful=careful)
        if self._cut:
            return self._read_whole(path, seen or path)
        into = Into(self._over, careful=careful)
        try:
            state: dict[str, Any] = jointly(
                self.ranks, lambda: load_into(seen or path, into, allow=self._allowed), f"reading {path}"
            )
        finally:
            self.touched = into.touched
        return state

    def _read_shards(self, path: str, seen: str, *, careful: bool) -> dict[str, Any]:
        from holdfast.engine import read_metadata, read_sharded  # noqa: PLC0415 - slow to import, and for shards only

        at = f"reading {path}"

        def prepare() -> tuple[Any, dict[str, Any]]:
            saved = read_metadata(seen)
            return saved, place_for(self.parts, self._live, saved, self.ranks, fresh=careful)

        saved, place = jointly(self.ranks, prepare, at)
        self.touched = not careful
        read_sharded(seen, place, ranks=self.ranks, allow=self._allowed)
        return filled(place, saved)

    def _read_whole(self, path: str, seen: str) -> dict[str, Any]:
        """Read one file on every rank, which takes of its tensors what it needs: they are mapped, not copied."""
        self.ranks.agree(lambda: verify(path) and None)  # its account stays on rank 0

        def take() -> dict[str, Any]:
            state: dict[str, Any] = load(seen, mmap=is_local(seen), allow=self._allowed)
            self.touched = True
            return spread(self.parts, self._live, state)

        return jointly(self.ranks, take, f"reading {path}")


class Search:
    """From the newest to the oldest, until one is whole. Every rank calls the same.

    Args:
        ranks: who else is there.
        passing: what becomes of those that are passed over; on rank 0.
        mirror: the second tier, if there is one; on rank 0.

    Attributes:
        run: that of the newest whole one, on rank 0; "" if there is none.
        tier: where that was found, on rank 0.
        branch: what another branch of the run has saved later in the other tier, in words, on rank 0; or "".

    """

    def __init__(self, ranks: Ranks, passing: PassingOver, mirror: SecondTier | None = None) -> None:
        """Know none yet."""
        self._ranks, self._passing, self._mirror = ranks, passing, mirror
        self._items: list[Candidate] = []
        self._spoilt = self.run = self.branch = ""
        self.tier = LOCAL

    def look_at(self, found: Iterable[Found], afar: Iterable[Found] = ()) -> None:
        """Rank 0 only: these are the candidates, here and on the mirror, in any order."""
        found = list(found)
        self._passing.note_unreadable(found)
        self._passing.note_told(afar, afar=True)
        candidates = map(Candidate, newest_first(found)) if self._mirror is None else self._mirror.candidates(found)
        self._items = [one for one in candidates if one.found.facts and not one.found.facts.weights_only]

    def first_whole(self, reading: Reading) -> tuple[str, dict[str, Any]] | None:
        """Return the newest that every rank could read, with its state; None if there is none.

        Raises:
            DamagedCheckpointError: for the first that would be passed over, if ``passing`` stops there.
            LoadError: if the newest whole one cannot be loaded for another reason; or if none is whole and a
                damaged one has been written over living tensors.

        """
        for place in range(self._ranks.agree(lambda: len(self._items))):
            following = self._ranks.agree(lambda: self._next(place))  # noqa: B023 - called at once
            if following is None:
                continue
            try:
                path, seen = following.path, self._where(following)
                state = reading.read(path, in_shards=following.in_shards, careful=following.careful, seen=seen)
            except (DamagedCheckpointError, OSError) as error:
                self._pass_over(place, error)
                if any(self._ranks.exchange(reading.touched)):
                    self._spoilt = following.path
            else:
                self._note_run(place)
                return following.path, state
        if self._spoilt:
            msg = (
                f"no checkpoint is whole, and the model holds what was read of {self._spoilt} before its damage was "
                "found. Build model and optimizer anew: training can then start afresh. The warnings say where the "
                "damaged files are"
            )
            raise LoadError(msg)
        return None

    def _where(self, following: _Next) -> str:
        """Return where this rank reads a checkpoint; of several files all ranks read it at one place."""
        if not following.elsewhere or not following.in_shards:
            return following.seen
        unseen = self._ranks.highest([int(following.seen != following.path)])[0]
        return following.elsewhere if unseen else following.path

    def _next(self, place: int) -> _Next | None:
        """Rank 0 only: what is on the mirror alone is here by then; None if it could not be had."""
        one = self._items[place]
        self.branch = "" if self._mirror is None else self._mirror.other_branch(one, self._items, "resume({!r})")
        if one.is_far:
            brought = self._bring(one.found)
            if brought is None:
                return None
            self._items[place] = one = replace(one, found=brought)
        older = len(self._items) - 1 - place
        path = one.found.path
        return _Next(
            path,
            one.found.sharded or os.path.isdir(path),
            careful=self._passing.stops or not older,
            elsewhere=one.elsewhere,
        )

    def _bring(self, item: Found) -> Found | None:
        """Rank 0 only: fetch what the mirror has; None if it is damaged there, or no longer there."""
        assert self._mirror is not None  # noqa: S101 - it is the mirror's
        self._passing.settle(item.facts.run if item.facts is not None else "")  # its name is free then
        try:
            return self._mirror.bring(item)
        except (DamagedCheckpointError, FileNotFoundError) as error:
            self._passing.note(item, error, afar=True)
            return None

    def _note_run(self, place: int) -> None:
        if self._ranks.leads:
            facts = self._items[place].found.facts
            self.run, self.tier = facts.run if facts is not None else "", self._items[place].tier

    def _pass_over(self, place: int, error: Exception) -> None:
        self._ranks.agree(lambda: self._passing.note(self._items[place].found, error))
