"""The directory and the ranking in memory: what a save of either class would do to them."""

from __future__ import annotations

import math
import re
from itertools import count

from tests.parity.configurations import Configuration
from tests.parity.outcome import Outcome, plain
from tests.parity.rows import Row
from tests.parity.schedule import Event

LAST = "last.ckpt"


class Shelf:
    """Files by name, each with its step, and the best k of them, after each save."""

    def __init__(self, config: Configuration, rows: frozenset[Row]):
        self.config = config
        self.rows = rows
        self.mode = config.word("mode", "min")
        self.worst_score = math.inf if self.mode == "min" else -math.inf
        self.files: dict[str, int] = {}
        self.scores: dict[str, float] = {}
        self.ages: dict[str, int] = {}
        self.numbers = count(1)
        self.best = self.kth = self.last = self.newest = ""
        self.current: float | None = None
        self.kth_value = self.worst_score

    def admits(self, score: float) -> bool:
        """Tell whether a checkpoint of this score belongs on the shelf."""
        k = self.config.word("save_top_k")
        if k == -1 or len(self.scores) < k:
            return True
        return self._badness(score) < self._badness(self.scores[self.kth])

    def put(self, event: Event, score: float | None) -> None:
        """Save a ranked checkpoint, then remove what it has pushed out."""
        if score is None:
            self._put_newest(event)
            return
        k = self.config.word("save_top_k")
        leaves = self.kth if len(self.scores) == k else ""
        whole = len(self.scores) + 1 if k == -1 else k
        name = self._free_name(event, leaves)
        if Row.OVERWRITTEN in self.rows and name in self.scores:
            leaves, whole = "", len(self.scores) if k == -1 else k
        if leaves:
            del self.scores[leaves]
        self._write(name, event)
        if leaves not in ("", name):
            del self.files[leaves]
        self.current = self.scores[name] = score if Row.NAN in self.rows else self._without_nan(score)
        self._rank(full=len(self.scores) == whole)

    def put_last(self, event: Event) -> None:
        """Save ``last`` as a file of its own."""
        self.files[LAST] = event.step
        self.last = self.newest = LAST

    def link_last(self) -> None:
        """Let ``last`` show what was saved newest."""
        self.files[LAST] = self.files[self.newest]
        self.last = LAST

    def outcome(self, *, raised: bool, warned: bool) -> Outcome:
        """Return all of this as a value."""
        return Outcome(
            files=dict(self.files),
            best=self.best,
            best_score=plain(self.scores.get(self.best)),
            best_k={name: plain(score) for name, score in self.scores.items()},
            kth=self.kth,
            kth_value=plain(self.kth_value),
            current_score=plain(self.current),
            last=self.last,
            raised=raised,
            warned=warned,
        )

    def _put_newest(self, event: Event) -> None:
        previous, self.best = self.best, self._free_name(event, self.best)
        self._write(self.best, event)
        if self.config.word("save_top_k") == 1 and previous not in ("", self.best):
            del self.files[previous]

    def _write(self, name: str, event: Event) -> None:
        self.files[name] = event.step
        self.ages[name] = next(self.numbers)
        self.newest = name

    def _rank(self, *, full: bool) -> None:
        names = list(self.scores)
        if full:
            self.kth = max(names, key=self._youngest_last) if Row.TIES in self.rows else max(names, key=self._by_score)
            self.kth_value = self.scores[self.kth]
        names.sort(key=self._youngest_last if Row.TIES in self.rows else self._by_score)
        self.best = "" if math.isnan(self.scores[names[0]]) else names[0]

    def _by_score(self, name: str) -> tuple[bool, float]:
        return self._badness(self.scores[name])

    def _youngest_last(self, name: str) -> tuple[tuple[bool, float], int]:
        return self._by_score(name), self.ages[name]

    def _badness(self, score: float) -> tuple[bool, float]:
        if math.isnan(score):
            return (Row.NAN in self.rows, math.inf)
        return (False, score if self.mode == "min" else -score)

    def _without_nan(self, score: float) -> float:
        return self.worst_score if math.isnan(score) else score

    def _free_name(self, event: Event, reusable: str) -> str:
        stem = self._stem(event)
        name = f"{stem}.ckpt"
        if self.config.word("enable_version_counter", default=True):
            versions = count(1)
            while name in self.files and name != reusable:
                name = f"{stem}-v{next(versions)}.ckpt"
        return name

    def _stem(self, event: Event) -> str:
        values = {"epoch": event.epoch, "step": event.step, **event.metrics}

        def fill(match: re.Match[str]) -> str:
            key, spec = match.groups()
            shown = format(values.get(key, 0), spec or "")
            return f"{key}={shown}" if self.config.word("auto_insert_metric_name", default=True) else shown

        return re.sub(r"\{(\w+):?([^}]*)\}", fill, self.config.word("filename") or "{epoch}-{step}")
