"""Which request meets which fault: rules that are the same in each run of a test."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol


class Asked(Protocol):
    """A request: its number from 1 on, its kind (a method of ``Objects``), its key."""

    @property
    def number(self) -> int:
        """Its place among all requests, from 1 on."""
        ...

    @property
    def kind(self) -> str:
        """The method of ``Objects`` that it is."""
        ...

    @property
    def key(self) -> str:
        """What it is about; of a listing, the prefix."""
        ...


@dataclass
class Rule:
    """One fault, and which requests meet it. ``hits`` counts those that did."""

    fault: Any
    kinds: frozenset[str] = frozenset()
    key: re.Pattern[str] = re.compile("")
    skip: int = 0
    times: int | None = None
    chance: float = 1.0
    dice: random.Random = field(default_factory=random.Random)
    hits: int = 0
    seen: int = 0

    def wants(self, asked: Asked) -> bool:
        """Tell whether a request meets the fault; to ask is to count it."""
        if (self.kinds and asked.kind not in self.kinds) or not self.key.search(asked.key):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        if self.chance < 1 and self.dice.random() >= self.chance:
            return False
        self.hits += 1
        return True


class Rules:
    """Rules in their order; the first that wants a request has it. Safe in threads."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._one_at_a_time = threading.Lock()

    def rule(  # noqa: PLR0913 - each word narrows the rule, and none is needed
        self,
        fault: Any,
        *,
        kinds: Collection[str] = (),
        key: str = "",
        skip: int = 0,
        times: int | None = None,
        chance: float = 1.0,
        seed: int = 0,
    ) -> Rule:
        """Add a rule.

        Args:
            fault: what happens to a request.
            kinds: of these kinds; none given: of all.
            key: whose key this pattern is found in.
            skip: but not the first so many of them.
            times: and no more than so many; None: without end.
            chance: each with this probability, by dice of the seed: the same in each run, if requests come in one
                order.
            seed: of the dice.

        """
        dice = random.Random(seed)  # noqa: S311 - no secret
        added = Rule(fault, frozenset(kinds), re.compile(key), skip, times, chance, dice)
        with self._one_at_a_time:
            self.rules.append(added)
        return added

    def no_rules(self) -> None:
        """Forget all rules: from now on nothing goes wrong."""
        with self._one_at_a_time:
            self.rules.clear()

    def fault_for(self, asked: Asked) -> Any:
        """Return the fault that a request meets, or None."""
        with self._one_at_a_time:
            return next((rule.fault for rule in self.rules if rule.wants(asked)), None)
