"""What a directory of checkpoints should hold: a plain model in memory, written from the documentation alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Saved:
    """One committed state: the value that training had then, which no other state has."""

    value: int
    step: int
    score: float
    order: int
    damaged: bool = False
    torn: bool = False  # so damaged that it cannot say what it is


@dataclass
class Shelf:
    """The ranked checkpoints and ``last`` of one run, by their values.

    Attributes:
        k, monitored, largest, keeps_last: the words of the run.
        shares: whether ``last`` is a second name of the ranked checkpoint of the same save.
        protected: the value that the run resumed from, where that is a file of its own.
        last_step: the step at which ``last`` was brought up to the training; 0 if it was not yet.
        orders: how many saves there were.

    """

    k: int
    monitored: bool
    largest: bool
    keeps_last: bool
    shares: bool
    ranked: list[Saved] = field(default_factory=list)
    last: Saved | None = None
    protected: int | None = None
    last_step: int = 0
    orders: int = 0

    def save(self, value, step, score):
        """An epoch has ended: save what its score admits, then forget what nobody wants."""
        self.orders += 1
        made = Saved(value, step, score, self.orders)
        admitted = self.admits(score)
        if admitted:
            self.ranked.append(made)
        if self.keeps_last:
            self.last, self.last_step = made, step
        if admitted or self.keeps_last:
            self.ranked = [item for item in self.ranked if self._is_kept(item)]

    def end(self, value, step, score):
        """Training has ended: ``last`` is brought up to its state, if it is not."""
        if self.keeps_last and step not in (0, self.last_step):
            self.orders += 1
            self.last, self.last_step = Saved(value, step, score, self.orders), step
            self.ranked = [item for item in self.ranked if self._is_kept(item)]

    def after_save(self, value, step, score):
        """What would be there after this save."""
        other = copy.deepcopy(self)
        other.save(value, step, score)
        return other

    def values(self):
        """What is there: the values of the ranked ones, and that of ``last``."""
        return {item.value for item in self.ranked}, None if self.last is None else self.last.value

    def best(self):
        """The value of the best checkpoint; None if no score is a number, or none is asked for."""
        order = [item for item in self._order() if not math.isnan(item.score)]
        return order[0].value if self.monitored and order else None

    def candidates(self):
        """What a resume may take, newest first: ``(state, whether it is last)``."""
        found = [(item.order, False, item) for item in self.ranked]
        if self.last is not None:
            found.append((self.last.order, True, self.last))
        return [(item, is_last) for _, is_last, item in sorted(found, key=lambda row: row[:2], reverse=True)]

    def resume(self):
        """Take the newest whole one; return it, and the values of those that were passed over.

        That is the damaged ones that are newer, and all that are torn: nobody can tell how old they are.
        """
        self.protected, known = None, self.candidates()
        passed = [item.value for item, _ in known if item.torn]
        for item, is_last in [pair for pair in known if pair[0].torn]:
            self._set_aside(item, is_last=is_last)
        for item, is_last in self.candidates():
            if not item.damaged:
                self.protected = None if is_last else item.value
                self.last_step = item.step if self.last is not None and self.last.step == item.step else 0
                return item, passed
            passed.append(item.value)
            self._set_aside(item, is_last=is_last)
        self.last_step = 0
        return None, passed

    def damage(self, value, *, is_last, torn):
        """Say that the bytes of a file are damaged: of both its names, where they share them."""
        known = [self.last] if is_last else [item for item in self.ranked if item.value == value]
        orders = {item.order for item in known}
        if not is_last or self.shares:
            hit = [replace(item, damaged=True, torn=torn) if item.order in orders else item for item in self.ranked]
            self.ranked = hit
        if self.last is not None and self.last.order in orders and (is_last or self.shares):
            self.last = replace(self.last, damaged=True, torn=torn)

    def _set_aside(self, item, *, is_last):
        if is_last:
            self.last = None
        else:
            self.ranked.remove(item)

    def _badness(self, item):
        if math.isnan(item.score):
            return (True, 0.0, item.order)
        return (False, -item.score if self.largest else item.score, item.order)

    def _order(self):
        return sorted(self.ranked, key=self._badness)

    def admits(self, score):
        if not self.monitored or self.k == -1 or len(self.ranked) < self.k:
            return True
        worst = self._order()[self.k - 1]
        return self._badness(Saved(0, 0, score, 0))[:2] < self._badness(worst)[:2]

    def _is_kept(self, item):
        newest = max(self.ranked, key=lambda other: other.order)
        if self.k == -1 or item is newest or item.value == self.protected:
            return True
        if not self.monitored:
            return False
        return item in self._order()[: self.k] or item.value == self.best()
