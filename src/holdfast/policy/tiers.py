"""Two homes of one run: which copy a resume takes, and when it may begin afresh.

The local directory is the near tier, the mirror the far one. The newest save of either is taken; where both have it,
the near copy is tried first and the far one is its stand-in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from holdfast.policy.terms import Candidate
from holdfast.records import LAST, PREEMPTED

LOCAL: Final = "local"
MIRROR: Final = "mirror"


@dataclass(frozen=True)
class Copy:
    """A checkpoint in one of the tiers, as its manifest says.

    Attributes:
        tier: ``"local"`` or ``"mirror"``.
        name: relative to its tier.
        run: its run.
        sequence: its place in the order of the run's saves.
        time: when it was saved, ISO 8601 in UTC.
        last: whether its name is that of ``last``.
        identity: the same for all copies of one save, in either tier; "" if there is no telling.

    """

    tier: str
    name: str
    run: str
    sequence: int
    time: str
    last: bool = False
    identity: str = ""


def newest_first(copies: Iterable[Copy]) -> list[Copy]:
    """Order the copies as a resume tries them.

    Runs by the time of each one's newest save, within a run by the sequence of its saves. All near copies of a save
    come before the far ones. The tier itself makes nothing newer. Of the far copies ``last`` comes last: what is
    fetched alone, by a process that dies then, is to have a place in the ranking, and the next save not to replace it.
    """
    known = list(copies)
    latest: dict[str, str] = {}
    for copy in known:
        latest[copy.run] = max(latest.get(copy.run, ""), copy.time)

    def age(copy: Copy) -> tuple[str, str, int, str, bool, bool, str]:
        near = copy.tier == LOCAL
        return latest[copy.run], copy.run, copy.sequence, copy.time, near, copy.last == near, copy.name

    return sorted(known, key=age, reverse=True)


def later_branch(chosen: Copy, copies: Iterable[Copy]) -> Copy | None:
    """Return the newest copy of the same run that was saved after the chosen one and has not come as far; or None.

    There is one where the run went back, and on, without knowing of what the other tier has: two branches of one run.
    """
    later = (
        copy
        for copy in copies
        if copy.run == chosen.run and copy.time > chosen.time and copy.sequence < chosen.sequence
        if copy.tier != chosen.tier
    )
    return max(later, key=lambda copy: (copy.time, copy.sequence, copy.name), default=None)


def only_there(copies: Iterable[Copy], taken: Collection[str]) -> list[Copy]:
    """Return the copies on the mirror whose names are free here; ``taken``: the names that are here.

    The save may be here under another name: each name has its own place in the ranking.
    """
    return [copy for copy in copies if copy.tier == MIRROR and copy.name not in taken]


def may_begin_afresh(*, asked: bool) -> bool:
    """Tell whether a run that has found nothing to resume from may start from nothing.

    Only if the mirror has answered: a run that begins at step 0 because the network was down has lost its place.
    """
    return asked


def spared(dropped: Iterable[str], under_way: str, newest_waiting: str) -> list[str]:
    """Return those that retention drops here and that stay for now, because the mirror needs them: two at most.

    What is being uploaded, or a network slower than the saves would never have a whole one there; and the newest that
    waits for its turn, which is what the mirror is to have next. Older ones that wait are given up: a slow network
    does not fill the local disk.
    """
    needed = {name for name in (under_way, newest_waiting) if name}
    return [name for name in dropped if name in needed]


def overtaken(there: Iterable[Candidate], resumed_from: Collection[str] = ()) -> dict[str, str]:
    """Return what nobody needs on the mirror any more, besides what the rules decide about: by name, the reason.

    As in the directory: a ``last`` under an older name, once there is a newer one; and what a signal had saved, once
    the same run has committed anything newer. Never what is pinned, or what a run resumed from.
    """
    known = [item for item in there if item.run]
    newest: dict[tuple[str, str, str], int] = {}
    for item in known:
        for kind in (item.role or "", ""):
            newest[item.run, item.owner, kind] = max(newest.get((item.run, item.owner, kind), 0), item.sequence)
    gone = {}
    for item in known:
        if item.pinned or item.name in resumed_from:
            continue
        if item.role == LAST and item.sequence < newest[item.run, item.owner, LAST]:
            gone[item.name] = "a newer last replaced it"
        elif item.role == PREEMPTED and item.sequence < newest[item.run, item.owner, ""]:
            gone[item.name] = "a newer checkpoint is committed"
    return gone
