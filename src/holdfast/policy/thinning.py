"""Dense when young, sparse when old: one rule for the ladder that backup tools keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import whole_number
from holdfast.policy.terms import Candidate, Group, Rule

_HOUR, _DAY, _WEEK = 3600, 86400, 7 * 86400
_MONDAY = 3 * _DAY  # the epoch began on a Thursday

_Ladder = tuple[tuple[int, int], ...]


@dataclass(frozen=True, repr=False)
class Thin(Rule):
    """Keeps the newest of each of the last so many hours, days, weeks, or blocks of steps or epochs.

    ``Thin(hourly=24, daily=7, weekly=-1)`` keeps one for each of the last 24 hours in which there were saves, one for
    each of the last 7 days with saves, and one for each week. ``Thin(steps={1_000: 10, 10_000: -1})`` keeps one for
    each of the last 10 thousands of steps, and one for each ten thousand. -1 means without end, 0 none.

    Hours, days and weeks (from Monday) are those of UTC. A block of steps ends with its multiple, so that round steps
    are what stays. Only hours (days, blocks) that have checkpoints count, and which are the last ones is told by the
    order of the saves: a run that stands still loses nothing, and neither does one whose clock was wrong. What was
    saved at a time that is not known is kept.
    """

    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    steps: Mapping[int, int] | _Ladder = field(default=())
    epochs: Mapping[int, int] | _Ladder = field(default=())

    def __post_init__(self) -> None:
        """Check the numbers."""
        for word in ("hourly", "daily", "weekly"):
            object.__setattr__(self, word, whole_number(f"{word} of Thin(...)", getattr(self, word), least=-1))
        for word in ("steps", "epochs"):
            object.__setattr__(self, word, _ladder(word, getattr(self, word)))
        if not any((self.hourly, self.daily, self.weekly, self.steps, self.epochs)):
            msg = "Thin() says nothing: write for example Thin(hourly=24, daily=7, weekly=4) or Thin(steps={1000: 10})"
            raise ConfigurationError(msg)

    def choose(self, group: Group) -> dict[int, str]:
        """Choose the newest of each bucket of each rung."""
        order = group.newest_first()
        rungs: dict[int, list[str]] = {}
        for what, many, key in self._rungs():
            buckets = group.first_of_each(key, order)
            for place in buckets if many == -1 else buckets[:many]:
                rungs.setdefault(place, []).append(what)
        reasons = {place: f"the newest of {' and of '.join(names)}" for place, names in rungs.items()}
        if self.hourly or self.daily or self.weekly:
            timeless = (place for place in order if group.members[place].time is None)
            reasons.update(dict.fromkeys(timeless, "its time is not known"))
        return reasons

    def _rungs(self) -> list[tuple[str, int, Callable[[Candidate], int | None]]]:
        """Return for each rung: what its buckets are called, how many count, and which bucket one is in."""
        times = (("its hour", self.hourly, _HOUR), ("its day", self.daily, _DAY), ("its week", self.weekly, _WEEK))
        rungs = [(what, many, _by_time(seconds)) for what, many, seconds in times if many]
        rungs += [(f"its {size} steps", many, _by_steps(size)) for size, many in dict(self.steps).items()]
        rungs += [(f"its {size} epochs", many, _by_epochs(size)) for size, many in dict(self.epochs).items()]
        return rungs

    def missed(self, group: Group) -> str:
        """Say that it was thinned out."""
        del group
        return "thinned out: a newer one stands for the same time"

    def most(self, steps: int | None, epochs: int | None) -> int | None:
        """Return how many buckets count, those of a rung without end as far as the run goes."""
        bounds = [None if many == -1 else many for many in (self.hourly, self.daily, self.weekly)]
        for ladder, length in ((self.steps, steps), (self.epochs, epochs)):
            for size, many in dict(ladder).items():
                there = None if length is None else max(0, length) // size + 2
                bounds.append(there if many == -1 else many if there is None else min(many, there))
        known = [bound for bound in bounds if bound is not None]
        return sum(known) if len(known) == len(bounds) else None

    def __str__(self) -> str:
        """Return the notation."""
        words = [f"{word}={getattr(self, word)}" for word in ("hourly", "daily", "weekly") if getattr(self, word)]
        words += [
            f"{word}={dict(ladder)!r}" for word, ladder in (("steps", self.steps), ("epochs", self.epochs)) if ladder
        ]
        return f"Thin({', '.join(words)})"


def _by_time(seconds: int) -> Callable[[Candidate], int | None]:
    shift = _MONDAY if seconds == _WEEK else 0
    return lambda member: None if member.time is None else int((member.time.timestamp() + shift) // seconds)


def _by_steps(size: int) -> Callable[[Candidate], int | None]:
    return lambda member: -(-member.step // size)


def _by_epochs(size: int) -> Callable[[Candidate], int | None]:
    return lambda member: member.epoch // size


def _ladder(word: str, value: Any) -> _Ladder:
    """Return how many blocks of which sizes, the small ones first."""
    try:
        pairs = dict(value)
    except (TypeError, ValueError):
        example = "{1_000: 10, 10_000: -1}"
        msg = f"{word} of Thin(...) says how many blocks of which size, such as {example}, but got {value!r}"
        raise ConfigurationError(msg) from None
    checked = {
        whole_number(f"the size of a block in {word} of Thin(...)", size, least=1): whole_number(
            f"how many blocks of {size} {word} Thin(...) keeps", many, least=-1
        )
        for size, many in pairs.items()
    }
    return tuple(sorted((size, many) for size, many in checked.items() if many))
