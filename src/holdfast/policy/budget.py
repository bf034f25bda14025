"""Budgets: how many bytes the checkpoints of a run may take, and what goes when they take more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import whole_number
from holdfast.policy.terms import Candidate, Group, Term

_DECIMAL = ("", "k", "M", "G", "T", "P")
_UNITS = {
    **{f"{letter}B".lower(): 1000**power for power, letter in enumerate(_DECIMAL)},
    **{f"{letter}iB".lower(): 1024**power for power, letter in enumerate(_DECIMAL) if letter},
}


@dataclass(frozen=True, repr=False)
class Within(Term):
    """A budget: no more than so many bytes for the checkpoints of a run.

    It keeps nothing, it bounds what the rules keep. While that is too much, the oldest goes, by the order of the
    saves. The floor never goes: the newest, the best, the one resumed from, what is pinned, and what no rule
    decides about (``last`` and the like) stay even if they alone take more. All of these count. Files that share
    their bytes count once, and go together.

    Alone, it keeps all that fits.

    Attributes:
        bytes: a number of bytes, or a text such as ``"200GB"``, ``"1.5 TB"`` (powers of 1000) or ``"64GiB"`` (of 1024).

    """

    bytes: int | str

    def __post_init__(self) -> None:
        """Check the amount."""
        object.__setattr__(self, "bytes", parse_bytes("Within", self.bytes))

    @property
    def limit(self) -> int:
        """The budget in bytes."""
        return int(self.bytes)

    @property
    def is_rule(self) -> bool:
        """True: it stands among the rules."""
        return True

    def __str__(self) -> str:
        """Return the notation."""
        amount = short_bytes(self.limit)
        return f"Within({amount!r})" if amount else f"Within({self.limit})"


def parse_bytes(what: str, value: Any) -> int:
    """Return a number of bytes, at least 1, from a number or a text such as ``"200GB"`` or ``"64GiB"``.

    Raises:
        ConfigurationError: for anything else.

    """
    if not isinstance(value, str):
        return whole_number(f"the bytes of {what}", value, least=1)
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", value, re.ASCII)
    unit = _UNITS.get(match[2].lower() or "b") if match is not None else None
    if match is None or unit is None:
        msg = f"{what} takes bytes as a number or as a text such as '200GB', '1.5TB' or '64GiB', but got {value!r}"
        raise ConfigurationError(msg)
    whole, _, part = match[1].partition(".")
    return whole_number(f"the bytes of {what}", int(whole) * unit + int(part or "0") * unit // 10 ** len(part), least=1)


def short_bytes(amount: int) -> str:
    """Return an amount in the largest decimal unit that holds it without a rest; "" below 1 kB."""
    for power in range(len(_DECIMAL) - 1, 0, -1):
        if amount and amount % 1000**power == 0:
            return f"{amount // 1000**power}{_DECIMAL[power]}B"
    return ""


def over_budget(
    group: Group, kept: Collection[int], floor: Collection[int], others: Sequence[Candidate], limit: int
) -> set[int]:
    """Return the places that go so that the rest fits, oldest first; never one of the floor.

    Args:
        group: the ranked checkpoints of a run.
        kept: the places that the rules keep, the floor among them.
        floor: the places that never go.
        others: the checkpoints of the run that no rule decides about.
        limit: in bytes.

    """
    sizes: dict[str, int] = {}
    for member in others:
        sizes[_content(member)] = max(member.size, sizes.get(_content(member), 0))
    stay = {*sizes, *(_content(group.members[place]) for place in floor)}
    sharing: dict[str, list[int]] = defaultdict(list)
    for place in group.newest_first(kept):
        content = _content(group.members[place])
        sharing[content].append(place)
        sizes[content] = max(group.members[place].size, sizes.get(content, 0))
    total = sum(sizes.values())
    gone: set[int] = set()
    for content in reversed(sharing):  # as old as the newest of those that share it
        if total <= limit:
            break
        if content not in stay and sizes[content] > 0:
            gone.update(sharing[content])
            total -= sizes[content]
    return gone


def _content(member: Candidate) -> str:
    """What identifies the bytes: two names of one file take no more than one."""
    return f"id {member.file_id}" if member.file_id else f"name {getattr(member, 'folder', '')} {member.name}"
