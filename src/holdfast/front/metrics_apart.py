"""Metrics that differ between ranks: rank 0's decides, and one warning says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.ranks import Ranks
from holdfast.telling import warn

_SHOWN = 4  # ranks that a warning names before it counts the others
_NOISE = 1e-6  # relative: metrics that are reduced in another order differ by so much


@dataclass
class MetricsApart:
    """Compares what the ranks have measured, until a difference was warned of. One for each front door."""

    _warned: bool = False

    def look(self, ranks: Ranks, measured: Mapping[str, float], *, at: str = "") -> None:
        """Warn, on rank 0 and once, if the ranks have measured different things. Call it on every rank, at a save.

        Args:
            ranks: those that save.
            measured: the metrics of this very state that the policy looks at, as this rank has them; none it lacks.
            at: as in ``Ranks.agree``.

        """
        if ranks.alone or self._warned:
            return
        text = difference(ranks.exchange(dict(measured), at=at))
        self._warned = bool(text)
        if text and ranks.leads:
            warn(text)


def difference(values: Sequence[Mapping[str, float]]) -> str:
    """Return a sentence on the metrics that differ between ranks, or that only some have; "" if there is none.

    Args:
        values: what each rank has measured, in the order of the ranks.

    """
    names = sorted({name for each in values for name in each})
    apart = [name for name in names if not all(_same(values[0].get(name), each.get(name)) for each in values)]
    if not apart:
        return ""
    told = "; ".join(f"{name!r} is {_by_rank([each.get(name) for each in values])}" for name in apart)
    return (
        f"the ranks have measured different things: {told}. Rank 0's value decides, and where it has none the metric "
        "counts as missing. Give every rank the same: reduce it over the ranks before (torch.distributed.all_reduce; "
        "under Lightning, self.log(..., sync_dist=True))"
    )


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=_NOISE) or (math.isnan(one) and math.isnan(other))


def _by_rank(values: Sequence[float | None]) -> str:
    """Say what rank 0 has, and the first ranks that have something else."""
    others = [rank for rank, value in enumerate(values) if not _same(values[0], value)]
    shown = ", ".join(f"{_shown(values[rank])} on rank {rank}" for rank in (0, *others[:_SHOWN]))
    more = len(others) - _SHOWN
    return shown + (f", and differs on {more} more" if more > 0 else "")


def _shown(value: float | None) -> str:
    return "missing" if value is None else f"{value:.6g}"
