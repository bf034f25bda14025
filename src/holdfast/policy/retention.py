"""The answer that every committed checkpoint gets, with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Whether one checkpoint is kept, why, its place in the ranking (from 1), and the rules that keep it.

    ``rules`` holds their notations, and ``"floor: ..."`` for what is kept whatever the rules say.
    """

    name: str
    keep: bool
    reason: str
    rank: int | None = None
    rules: tuple[str, ...] = ()
