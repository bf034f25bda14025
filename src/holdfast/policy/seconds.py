"""Saves by time: ``EverySeconds(600)``, and ``EverySeconds("auto")``, which weighs what a save costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import number
from holdfast.policy.interval import optimal_interval
from holdfast.policy.interval import seconds as in_seconds
from holdfast.policy.spans import span
from holdfast.policy.terms import Trigger

DAY: Final = 86_400.0
#: Failures of one node per day of a large cluster: 6.5 in 1,000 node-days, by A. Kokolis et al., "Revisiting
#: Reliability in Large-Scale Machine Learning Research Clusters", 2024 (RSC-1).
NODE_FAILURES: Final = 6.5e-3
#: What else ends a run, per day, whatever its size: a preemption, a bug, a full memory, a closed laptop. Our guess.
OTHER_FAILURES: Final = 1.0
LEAST: Final = 60.0
MOST: Final = 3600.0
_EXACT = 2**53  # up to here every whole number is a float
_ROOM = 1.5  # how many times the time to a commit lies between two saves, at least: the disk is not always so fast


@dataclass(frozen=True)
class Spent:
    """What saving has cost a run of late, as far as it was measured. Times are in seconds.

    Attributes:
        saves: how many saves were measured.
        stall: for how long one stops the training, on average.
        commit: from the beginning of the newest committed one to its commit.
        nodes: the machines that the run is on.

    """

    saves: int = 0
    stall: float = 0.0
    commit: float = 0.0
    nodes: int = 1


NOTHING_SPENT: Final = Spent()


@dataclass(frozen=True, repr=False)
class EverySeconds(Trigger):
    """Save at the first step by whose end this many seconds have gone by since time last asked for a save.

    Of several the shortest decides. ``EverySeconds("auto")`` finds the seconds itself, by ``optimal_interval``: from
    how long the last saves have stopped the training, and from the mean time between failures. Before anything is
    measured it takes ``least``. It never saves sooner than one and a half times what it takes to a commit, even where
    that is more than ``most``.

    Args:
        seconds: a number above 0, or ``"auto"``.
        mtbf: for ``"auto"``: mean time between failures of the whole run: seconds, a ``timedelta``, or a text such as
            ``"3h"``. None: one failure a day, plus 6.5 in 1,000 days for each node: 23.8 hours on one node, 14.5 on
            100, 1.7 on 2,048. Of how many nodes a run is, ``LOCAL_WORLD_SIZE`` tells, else eight ranks are one.
        least: for ``"auto"``: seconds between two saves, at least.
        most: for ``"auto"``: seconds between two saves, at most.

    Raises:
        ConfigurationError: for values that cannot be meant.

    """

    seconds: float | Literal["auto"]
    mtbf: float | str | timedelta | None = None
    least: float = LEAST
    most: float = MOST

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.seconds != "auto":
            object.__setattr__(self, "seconds", number("EverySeconds", self.seconds, above=0.0))
            if (self.mtbf, self.least, self.most) != (None, LEAST, MOST):
                msg = f"mtbf, least and most go with EverySeconds('auto'), but got EverySeconds({self.seconds:g}, ...)"
                raise ConfigurationError(msg)
            return
        if self.mtbf is not None:
            given = span("mtbf of EverySeconds", self.mtbf) if isinstance(self.mtbf, str) else self.mtbf
            object.__setattr__(self, "mtbf", in_seconds("mtbf of EverySeconds", given, above=0.0))
        least = in_seconds("least of EverySeconds", self.least, above=0.0)
        most = in_seconds("most of EverySeconds", self.most, above=0.0)
        if least > most:
            msg = f"EverySeconds('auto') saves between least={least:g} and most={most:g}: the first is the larger one"
            raise ConfigurationError(msg)
        object.__setattr__(self, "least", least)
        object.__setattr__(self, "most", most)

    @property
    def is_auto(self) -> bool:
        """Whether the seconds follow from what was measured."""
        return self.seconds == "auto"

    def failing(self, nodes: int) -> float:
        """Return the mean seconds between failures of a run on so many nodes: as given, else as assumed."""
        if isinstance(self.mtbf, float):
            return self.mtbf
        return DAY / (OTHER_FAILURES + NODE_FAILURES * nodes)

    def interval(self, spent: Spent = NOTHING_SPENT) -> float:
        """Return the seconds between two saves, by what saving has cost so far."""
        if isinstance(self.seconds, float):
            return self.seconds
        if not spent.saves:
            return self.least
        best = optimal_interval(spent.stall, self.failing(spent.nodes))
        return max(min(max(best, self.least), self.most), _ROOM * spent.commit)

    def __str__(self) -> str:
        """Return the notation."""
        given = {"mtbf": (self.mtbf, None), "least": (self.least, LEAST), "most": (self.most, MOST)}
        words = [f"{word}={_short(value)}" for word, (value, usual) in given.items() if value != usual]
        return f"EverySeconds({', '.join([_short(self.seconds), *words])})"


def _short(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer() and value < _EXACT
    return repr(int(value)) if isinstance(value, float) and whole else repr(value)
