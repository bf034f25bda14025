"""What a directory of checkpoints should hold: a plain model in memory, written from the documentation alone."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace

from holdfast import All, Best, EverySteps, Latest


@dataclass(frozen=True)
class Saved:
    """One committed state: the value that training had then, which no other state has."""

    value: int
    step: int
    score: float
    order: int
    origin: int | None = None  # the value that the process that saved it resumed from, if that is a file of its own
    damaged: bool = False
    torn: bool = False  # so damaged that it cannot say what it is


@dataclass(frozen=True)
class Said:
    """What people say of one save, under whatever names it is there."""

    pinned: bool = False
    tags: frozenset[str] = frozenset()
    late: float | None = None  # a value of the monitored metric that came after the save


@dataclass
class Shelf:
    """The ranked checkpoints and ``last`` of one run, by their values.

    Attributes:
        k, monitored, largest, keeps_last: the words of the run.
        shares: whether ``last`` is a second name of the ranked checkpoint of the same save.
        protected: the value that the run resumed from, where that is a file of its own.
        last_step: the step at which ``last`` was brought up to the training; 0 if it was not yet.
        orders: how many saves there were.
        said: what people say of saves, by their orders.
        noted: how much of that a run that is alive has taken note of: it looks when it resumes and when it commits.

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
    said: dict[int, Said] = field(default_factory=dict)
    noted: dict[int, Said] = field(default_factory=dict)

    def save(self, value, step, score):
        """An epoch has ended: save what its score admits, then forget what nobody wants."""
        self.orders += 1
        made = Saved(value, step, score, self.orders, self.protected)
        admitted = self.admits(score)
        if admitted:
            self.ranked.append(made)
        if self.keeps_last:
            self.last, self.last_step = made, step
        if admitted or self.keeps_last:
            self._forget()

    def end(self, value, step, score):
        """Training has ended: ``last`` is brought up to its state, if it is not."""
        if self.keeps_last and step not in (0, self.last_step):
            self.orders += 1
            self.last, self.last_step = Saved(value, step, score, self.orders, self.protected), step
            self._forget()

    def after_save(self, value, step, score):
        """What would be there after this save."""
        other = copy.deepcopy(self)
        other.save(value, step, score)
        return other

    def values(self):
        """What is there: the values of the ranked ones, and that of ``last``."""
        return {item.value for item in self.ranked}, None if self.last is None else self.last.value

    def best(self):
        """The value of the best, as a run that is alive knows it; None if no score is a number, or none is asked."""
        best = self._best(self.ranked, self.noted, largest=self.largest)
        return best.value if self.monitored and best is not None else None

    def best_listed(self):
        """The value of the best that the directory lists, ``last`` too, by what people say by now."""
        best = self._best(self.listed(), self.said, largest=self.largest)
        return None if best is None else best.value

    def listed(self):
        """What can say what it is."""
        known = [*self.ranked, *([self.last] if self.last is not None else [])]
        return [item for item in known if not item.torn]

    def of(self, value, *, is_last):
        """The checkpoint of a value."""
        return self.last if is_last else next(item for item in self.ranked if item.value == value)

    def noted_of(self, item):
        """What people say of a checkpoint."""
        return self.said.get(item.order, Said())

    def pinned_and_gone(self):
        """How many saves are pinned and gone: a ``last`` that moved on, which no pin holds."""
        there = {item.order for item in self.listed()}
        return sum(said.pinned and order not in there for order, said in self.said.items())

    def say(self, value, *, is_last, **news):
        """Say something of a checkpoint: of its save, under both its names."""
        item = self.of(value, is_last=is_last)
        self.said[item.order] = replace(self.noted_of(item), **news)

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
        self.protected, known, self.noted = None, self.candidates(), dict(self.said)
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
        orders = {self.of(value, is_last=is_last).order}
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

    def admits(self, score):
        """Tell whether a save of this score is made: if it is among the best k by what people say by now."""
        if not self.monitored or self.k == -1 or len(self.ranked) < self.k:
            return True
        worst = self._order(self.ranked, self.said, largest=self.largest)[self.k - 1]
        return _badness(score, largest=self.largest) < _badness(self._score(worst, self.said), largest=self.largest)

    def dropped(self, rules):
        """The ranked ones that pruning between two lives removes: ``rules`` is a list, None for those of the run.

        Rules are asked of what can say what it is; what cannot, and ``last``, is none of theirs.
        """
        there = [item for item in self.ranked if not item.torn]
        rules = self._own_rules() if rules is None else rules
        kept = [item for rule in rules for item in self._chosen(rule, there)]
        kept += self._floor(there, {self.largest} if self.monitored else set(), rules)
        return [item for item in there if item not in kept]

    def prune(self, rules):
        """Remove them."""
        gone = self.dropped(rules)
        self.ranked = [item for item in self.ranked if item not in gone]

    def _forget(self):
        """A commit: take note of what people say, and remove what neither rules nor floor keep."""
        self.noted = dict(self.said)
        if self.k == -1:
            return
        kept = [item for rule in self._own_rules() for item in self._chosen(rule, self.ranked)]
        newest = max(self.ranked, key=lambda item: item.order, default=None)
        best = self.best()
        self.ranked = [
            item
            for item in self.ranked
            if item in kept or item is newest or item.value in (best, self.protected) or self.noted_of(item).pinned
        ]

    def _own_rules(self):
        """What the words of the run stand for."""
        if self.k == -1:
            return [All()]
        return [Best(self.k, "loss", mode="max" if self.largest else "min")] if self.monitored else [Latest(1)]

    def _chosen(self, rule, there):
        """What one rule keeps."""
        newest_first = sorted(there, key=lambda item: -item.order)
        if isinstance(rule, Latest):
            return newest_first[: rule.n]
        if isinstance(rule, Best):
            return self._order(there, self.said, largest=rule.mode == "max")[: rule.k]
        if isinstance(
            rule, EverySteps
        ):  # the first at or after each multiple; of a step that was passed twice the later
            blocks = {}
            for item in sorted(newest_first, key=lambda item: item.step):
                blocks.setdefault(item.step // rule.n, item)
            return [item for block, item in blocks.items() if block > 0]
        return there

    def _floor(self, there, modes, rules):
        """The newest, the best by each ranking, what the run resumed from, and what is pinned."""
        modes = modes | {rule.mode == "max" for rule in rules if isinstance(rule, Best)}
        best = [self._best(there, self.said, largest=largest) for largest in modes]
        newest = max(there, key=lambda item: item.order, default=None)
        origin = max(self.listed(), key=lambda item: item.order).origin if there else None
        pinned = [item for item in there if self.noted_of(item).pinned or item.value == origin]
        return [newest, *best, *pinned]

    def _score(self, item, said):
        late = said.get(item.order, Said()).late
        return item.score if late is None else late

    def _order(self, items, said, *, largest):
        """Sort from the best to the worst; of equals, the older first."""
        return sorted(items, key=lambda item: (_badness(self._score(item, said), largest=largest), item.order))

    def _best(self, items, said, *, largest):
        real = [item for item in items if not math.isnan(self._score(item, said))]
        return next(iter(self._order(real, said, largest=largest)), None)


def _badness(score, *, largest):
    """A key that sorts scores from best to worst; NaN is the worst."""
    if math.isnan(score):
        return (True, 0.0)
    return (False, -score if largest else score)
