"""The table that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """# Crashes: holdfast and its peers

`make crash-peers` writes this page. Each saver goes through three scenarios in a real process, which is
killed (SIGKILL) right before each single system call that writes, opens, closes, locks, syncs, renames or
removes something in its folder; a fresh process then loads whatever has a final name.

- **overwritten**: three states, one after the other under one name.
- **top-k**: four states, of which the best two (here the newest) are kept.
- **last**: three states, each under its own name, and `last` besides.

In each cell: kill points that **lost** a committed checkpoint, then those that left a **partial** file under
a final name, of all **points**. Lost means that what its saver had reported as saved, and no rule had
dropped in favour of something whole, can no longer be loaded to the bit. For the asynchronous savers
"reported" is when the write itself has returned.

Flips: one bit at a time, at places spread evenly over all bytes of a small checkpoint; **silent** are the
loads that gave back something else than was saved without a word. Harmless flips hit bytes that mean
nothing to the loader.
"""


def page(result: Mapping[str, Any]) -> str:
    """Return the page of a result."""
    versions, machine = result["versions"], result["machine"]
    known = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    scenarios = list(next(iter(result["peers"].values()))["kills"])
    lines = [
        HEAD,
        f"| lost, partial / points | {' | '.join(scenarios)} | flips: silent | harmless | refused |",
        f"| --- | {' | '.join('---:' for _ in scenarios)} | ---: | ---: | ---: |",
        *(_line(name, row, scenarios) for name, row in result["peers"].items()),
        "",
        f"On {machine['filesystem']}, {machine['kernel']}; {known}. A kill leaves what the system has in its",
        "memory: what a power cut does is not in this table. Lightning's saver writes to the system's temporary",
        "folder first; here that is on another filesystem than the checkpoints, as it mostly is where they are large.",
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, row: Mapping[str, Any], scenarios: list[str]) -> str:
    kills = [row["kills"][scenario] for scenario in scenarios]
    cells = [f"{item.get('lost', 0)}, {item.get('partial', 0)} / {item.get('points', 0)}" for item in kills]
    flips = [row["flips"].get(key, 0) for key in ("silent", "harmless", "refused")]
    total = sum(flips)
    return f"| {name} | {' | '.join(cells)} | {flips[0]} of {total} | {flips[1]} | {flips[2]} |"
