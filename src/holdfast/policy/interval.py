"""How long to train between two saves: what a save costs against what a failure loses. Pure arithmetic.

With M the mean time between failures, C what a save costs and T the training between two saves, failures that come
at random (a Poisson process) make a run of length 1 take

    M / T * exp(R / M) * (exp((T + C) / M) - 1)

in all, where R is what a restart takes. That is Daly's model; the functions here are about its lowest point.

- J. W. Young, "A first order approximation to the optimum checkpoint interval", Communications of the ACM 17(9), 1974.
- J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
  Computer Systems 22(3), 2006.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final, Literal

from holdfast.errors import ConfigurationError
from holdfast.policy.checks import number, whole_number

Formula = Literal["daly", "young"]
_FORMULAS: Final = ("daly", "young")


def optimal_interval(
    stall: float | timedelta,
    mtbf: float | timedelta,
    *,
    nodes: int = 1,
    write: float | timedelta = 0.0,
    formula: Formula = "daly",
) -> float:
    """Return how many seconds to train between two saves, so that saves and failures together cost the least.

    Args:
        stall: what a save costs the training, in seconds: how long it stands still. For a save that is written behind
            the training that is the stall alone, not the write (``SaveStats.stall_seconds / SaveStats.saves``); for
            one that waits for its commit it is the whole save.
        mtbf: mean time between failures, in seconds: of the whole run, or of one node where ``nodes`` are given.
        nodes: of how many nodes any one ends the run when it fails.
        write: seconds from the beginning of a save to its commit. It does not move the optimum, since a failure loses
            the same more wherever it falls. But saves that come faster than they are written wait for each other, so
            the interval is at least this long.
        formula: ``"daly"``: the higher order estimate, which wastes no more than 1% above the least as long as a save
            costs up to half the time between failures; from twice that time on it is the time itself. ``"young"``:
            the square root of 2 * stall * mtbf, which is nearly the same for cheap saves.

    What a restart takes moves nothing either: it is a factor of the whole. ``expected_waste`` counts it.

    Raises:
        ConfigurationError: for numbers that cannot be meant.

    """
    cost = seconds("stall", stall, least=0.0)
    mean = seconds("mtbf", mtbf, above=0.0) / whole_number("nodes", nodes, least=1)
    latest = seconds("write", write, least=0.0)
    if formula not in _FORMULAS:
        msg = f"formula can be 'daly' or 'young', but got {formula!r}"
        raise ConfigurationError(msg)
    return max(latest, _young(cost, mean) if formula == "young" else _daly(cost, mean))


def expected_waste(  # noqa: PLR0913 - the facts of a run
    interval: float | timedelta,
    stall: float | timedelta,
    mtbf: float | timedelta,
    *,
    nodes: int = 1,
    write: float | timedelta = 0.0,
    restart: float | timedelta = 0.0,
) -> float:
    """Return which share of a run's time is no progress: saves, restarts, and what is computed again.

    0.05 means that of 100 hours 5 are lost. Failures come at random, also while a save or a restart goes on.

    Args:
        interval: seconds of training between two saves.
        stall: seconds that a save stops the training for, as for ``optimal_interval``.
        mtbf: mean seconds between failures, of the whole run or of one node.
        nodes: of how many nodes any one ends the run when it fails.
        write: seconds from the beginning of a save to its commit, during which training goes on: a failure then goes
            back to the save before. Counted as so much more to compute again at each failure.
        restart: seconds from a failure to the first new step: noticing it, a new job, loading.

    Raises:
        ConfigurationError: for numbers that cannot be meant.

    """
    span, cost = seconds("interval", interval, above=0.0), seconds("stall", stall, least=0.0)
    mean = seconds("mtbf", mtbf, above=0.0) / whole_number("nodes", nodes, least=1)
    again = seconds("restart", restart, least=0.0) + seconds("write", write, least=0.0)
    # The logarithm of how many times longer the run takes: the exponentials alone leave the numbers of a machine.
    longer = again / mean + _log_expm1((span + cost) / mean) - math.log(span / mean)
    return max(0.0, -math.expm1(-longer))


def seconds(what: str, value: Any, *, least: float = 0.0, above: float | None = None) -> float:
    """Return a number of seconds, given as such or as a ``timedelta``.

    Raises:
        ConfigurationError: for anything else, or if it is too small; ``what`` stands in front of the message.

    """
    given = value.total_seconds() if isinstance(value, timedelta) else value
    return number(f"{what} (in seconds)", given, least=least, above=above)


def _young(cost: float, mean: float) -> float:
    return math.sqrt(2.0 * cost) * math.sqrt(mean)  # not of the product, which may overflow


def _daly(cost: float, mean: float) -> float:
    if cost >= 2.0 * mean:
        return mean
    part = math.sqrt(cost / (2.0 * mean))
    return _young(cost, mean) * (1.0 + part / 3.0 + part * part / 9.0) - cost


def _log_expm1(power: float) -> float:
    return power + math.log(-math.expm1(-power))
