"""The goals, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import ours, peers, peers_dcp, peers_lightning, report
from benchmarks.options import Options
from benchmarks.report import Column, Rows
from benchmarks.states import LARGE, TINY

MEBIBYTE = 1 << 20
COLUMNS = (Column("goal", "goal"), Column("measured", "measured"), Column("met", "met"))
FASTER_PEERS = (
    peers.TORCH_SAVE,
    peers.TORCH_SAVE_ONLY,
    peers.TORCH_SAVE_THREAD,
    peers_lightning.LIGHTNING_ASYNC,
    peers_dcp.DCP_ASYNC,
    peers_dcp.DCP_REUSED,
    peers_dcp.DCP_OVERLAPPED,
    peers_dcp.DCP_PROCESS,
)
OTHER_LOADS = ("torch.load", "safetensors", "dcp.load")


class Results:
    """What the tables have written; a row or a table that is not there raises KeyError."""

    def __init__(self, options: Options) -> None:
        names = ("save_sync", "save_async", "throughput", "load", "overhead")
        self._tables = {name: report.read(options, name) for name in names}

    def rows(self, table: str, group: str) -> dict[str, Any]:
        """Return the rows of a group.

        Raises:
            KeyError: if they were not measured.

        """
        result = self._tables[table]
        if result is None:
            raise KeyError(table)
        rows: dict[str, Any] = result["groups"][group]["rows"]
        return rows

    def groups(self, table: str) -> list[str]:
        """Return the names of a table's groups."""
        result = self._tables[table]
        return [] if result is None else list(result["groups"])

    def median(self, table: str, group: str, row: str, key: str) -> float:
        """Return one figure.

        Raises:
            KeyError: if it was not measured.

        """
        value = self.rows(table, group)[row][key]
        return float(value["median"] if isinstance(value, dict) else value)


@dataclass(frozen=True)
class Goal:
    """One line: what is measured, from which results, and the bound it is to keep.

    Attributes:
        name: what is bounded.
        figure: takes it from the results.
        bound: the goal.
        at_least: whether the bound is a lower one.
        unit: behind the figures.
        factor: from what is measured to what is shown.

    """

    name: str
    figure: Callable[[Results], float]
    bound: float
    at_least: bool = False
    unit: str = ""
    factor: float = 1.0

    def line(self, results: Results) -> dict[str, str]:
        """Return the row of the table."""
        wanted = f"{'>=' if self.at_least else '<='} {self.bound * self.factor:.4g}{self.unit}"
        try:
            value = self.figure(results)
        except (KeyError, TypeError):
            return {"goal": wanted, "measured": "not measured", "met": "?"}
        met = value >= self.bound if self.at_least else value <= self.bound
        return {"goal": wanted, "measured": f"{value * self.factor:.3g}{self.unit}", "met": "yes" if met else "NO"}


def _async(row: str, key: str) -> Callable[[Results], float]:
    return lambda results: results.median("save_async", LARGE.label, row, key)


def _over_lightning(results: Results) -> float:
    seconds = [results.median("save_async", LARGE.label, name, "complete") for name in _LIGHTNING_AND_US]
    return seconds[0] / seconds[1]


def _lost_of_best(results: Results) -> float:
    best = min(results.median("throughput", "every 5", peer.name, "lost") for peer in FASTER_PEERS)
    if best <= 0:
        raise KeyError("lost")  # noise alone: more rounds are needed
    return results.median("throughput", "every 5", ours.COPY.name, "lost") / best


def _lost(every: int, row: str) -> Callable[[Results], float]:
    return lambda results: results.median("throughput", f"every {every}", row, "lost")


def _left_out(results: Results) -> float:
    rows = results.rows("throughput", "every 1")
    return float(max(rows[v.name]["asked"] - rows[v.name]["committed"] for v in ours.ASYNCHRONOUS if v.name in rows))


def _growth(results: Results) -> float:
    return float(max(row["growth"] for row in results.rows("save_async", "growth").values()))


def _load_of_best(how: str) -> Callable[[Results], float]:
    def figure(results: Results) -> float:
        rows = results.rows("load", LARGE.label)
        best = min(row[how]["median"] for name, row in rows.items() if name.startswith(OTHER_LOADS))
        own = min(row[how]["median"] for name, row in rows.items() if name.startswith("holdfast"))
        return float(own / best)

    return figure


def _load_of_limit(results: Results) -> float:
    rows = results.rows("load", LARGE.label)
    return float(min(row["cold_of_limit"]["median"] for name, row in rows.items() if name.startswith("holdfast")))


def _hook_of_stock(results: Results) -> float:
    hooks = [group for group in results.groups("overhead") if group.startswith("hook: ")]
    return max(
        results.median("overhead", hook, "holdfast's ModelCheckpoint", "seconds")
        / results.median("overhead", hook, "Lightning's ModelCheckpoint", "seconds")
        for hook in hooks
    )


_LIGHTNING_AND_US = (peers_lightning.LIGHTNING.name, ours.COPY.name)
GOALS = (
    Goal(
        "durable asynchronous save, 1.5 GB: of the disk limit", _async(ours.COPY.name, "of_limit"), 0.8, at_least=True
    ),
    Goal("the same over recycled blocks", _async(ours.RECYCLED.name, "of_limit"), 0.95, at_least=True),
    Goal("the same, beside Lightning's throughput", _over_lightning, 4, at_least=True, unit=" x"),
    Goal("stall without overlap, of memcpy", _async(ours.COPY.name, "of_memcpy"), 1.15, unit=" x"),
    Goal("stall with overlap, of memcpy", _async(ours.OVERLAP.name, "of_memcpy"), 0.15, unit=" x"),
    Goal("throughput lost, a save every 5 steps, of the best peer's", _lost_of_best, 0.1, unit=" x"),
    Goal("throughput lost, a durable save after every step", _lost(1, ours.COPY.name), 0.1, unit=" %", factor=100),
    Goal("the same, overlapped", _lost(1, ours.OVERLAP.name), 0.1, unit=" %", factor=100),
    Goal("the same, the state living in the image", _lost(1, ours.ZERO_COPY.name), 0.04, unit=" %", factor=100),
    Goal("saves asked for and not made, after every step", _left_out, 0),
    Goal("CPU seconds per saved GB", _async(ours.COPY.name, "cpu_per_gb"), 0.2, unit=" s"),
    Goal("peak extra memory", _async(ours.COPY.name, "memory"), 1.02, unit=" images"),
    Goal("more memory at the 100th save", _growth, MEBIBYTE, unit=" KiB", factor=1 / 1024),
    Goal(
        "1 MB, synchronous, of torch.save + fsync's time",
        lambda results: results.median("save_sync", TINY.label, ours.SYNC.name, "of_torch"),
        1,
        unit=" x",
    ),
    Goal("verified load, cold, of the direct-read limit", _load_of_limit, 1.5, unit=" x"),
    Goal("verified load, cold, of the best peer's time", _load_of_best("cold"), 0.65, unit=" x"),
    Goal("verified load, warm, of the best peer's time", _load_of_best("warm"), 0.65, unit=" x"),
    Goal(
        "a step without a save, plain loop",
        lambda results: results.median("overhead", "plain loop", "ckpt.step()", "seconds"),
        1e-6,
        unit=" us",
        factor=1e6,
    ),
    Goal("a batch without a save under Lightning, of the stock callback's time", _hook_of_stock, 1, unit=" x"),
)


def show(options: Options) -> None:
    """Print the goals, and write them beside the results."""
    results = Results(options)
    rows: Rows = {goal.name: goal.line(results) for goal in GOALS}
    report.show("goals", rows, COLUMNS)
    report.write(options, "goals", {"goals": {"rows": rows}})
