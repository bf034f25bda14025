"""The results as pictures: SVG, of few kilobytes, on no background, in colours for light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.options import Options

TEXT = "#7c7c7c"  # a contrast of about 4 on white as on black
OURS, PEER, LIMIT = "#2f81f7", "#a5a5a5", "#2da44e"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "holdfast",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.edgecolor": TEXT,
}


@dataclass(frozen=True)
class Panel:
    """One set of bars.

    Attributes:
        title: the words above.
        key: of the rows; rows without it have no bar.
        factor: from what is stored to what is shown.
        log: show magnitudes.

    """

    title: str
    rows: Mapping[str, Any]
    key: str
    factor: float = 1.0
    log: bool = False


def save_sync(options: Options, groups: Mapping[str, Any]) -> None:
    """Draw the seconds of the largest state, and the milliseconds of the smallest."""
    first, *_, last = groups.items()
    panels = [
        Panel(f"synchronous save, {last[0]}: seconds", last[1]["rows"], "seconds"),
        Panel(f"{first[0]}: milliseconds", first[1]["rows"], "seconds", 1e3),
    ]
    draw(options, "save_sync", panels)


def save_async(options: Options, groups: Mapping[str, Any]) -> None:
    """Draw stall and completion of the largest state."""
    label, group = [(label, group) for label, group in groups.items() if label != "growth"][-1]
    panels = [
        Panel(f"{label}: training stands still, seconds", group["rows"], "stall"),
        Panel("the file is complete after, seconds", group["rows"], "complete"),
    ]
    draw(options, "save_async", panels)


def throughput(options: Options, groups: Mapping[str, Any]) -> None:
    """Draw what is lost, in percent, at both distances."""
    titles = {"every 5": "throughput lost, %: a save every 5 steps", "every 1": "a save after every step"}
    draw(options, "throughput", [Panel(titles[key], group["rows"], "lost", 100) for key, group in groups.items()])


def load(options: Options, groups: Mapping[str, Any]) -> None:
    """Draw the largest state, cold and warm."""
    label, group = list(groups.items())[-1]
    panels = [
        Panel(f"load, {label}, cold: seconds", group["rows"], "cold"),
        Panel("warm: seconds", group["rows"], "warm"),
    ]
    draw(options, "load", panels)


def overhead(options: Options, groups: Mapping[str, Any]) -> None:
    """Draw microseconds, by magnitude."""
    rows = {"plain loop: ckpt.step()": groups["plain loop"]["rows"]["ckpt.step()"]}
    for case, group in groups.items():
        if case.startswith("hook: "):
            words = case.removeprefix("hook: ").removesuffix(", 100 metrics")
            for name, row in group["rows"].items():
                whose = name.removesuffix("'s ModelCheckpoint")
                rows[f"{whose}: {words}"] = row
    draw(options, "overhead", [Panel("a step without a save: microseconds", rows, "seconds", 1e6, log=True)])


def draw(options: Options, name: str, panels: Sequence[Panel]) -> None:
    """Draw panels side by side, and write the file."""
    path = options.results / "plots" / f"{name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(row for panel in panels for row in panel.rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.7 + 0.24 * len(names)), layout="constrained")
        axes: list[Axes] = list(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0])
        for axis, panel in zip(axes, panels, strict=True):
            _bars(axis, panel, names)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})


def _bars(axis: Axes, panel: Panel, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        value = panel.rows.get(name, {}).get(panel.key)
        if value is None:
            continue
        low, middle, high = (value[part] * panel.factor for part in ("q1", "median", "q3"))
        color = OURS if "holdfast" in name or name.startswith("plain loop") else LIMIT if "limit" in name else PEER
        axis.barh(at, middle, height=0.66, color=color)
        axis.plot([low, high], [at, at], color=TEXT, linewidth=1)
        axis.annotate(
            f"{middle:.3g}" if abs(middle) < 1000 else f"{middle:.0f}",
            (max(high, middle, 0), at),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axis.set_title(panel.title, fontsize=9, loc="left")
    if panel.log:
        axis.set_xscale("log")
    axis.margins(x=0.16)
    axis.tick_params(left=False)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
