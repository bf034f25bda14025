"""What a struck run has lost, judged from what it had said and from what can be loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.crash.peers import KEPT


def found(said: Iterable[Mapping[str, Any]]) -> dict[str, int | None]:
    """Return what ``inspect`` told: the step of each path, None where it cannot be loaded."""
    return {item["path"]: item["step"] for item in said}


def judge(scenario: str, said: Iterable[Any], there: Mapping[str, int | None]) -> Counter[str]:
    """Say whether a committed checkpoint is lost, and whether a partial file has a final name.

    Lost is, under one name: what can be loaded there is no longer what was committed, nor newer. Among
    top-k: fewer of the best can be loaded than were committed and are to be kept.
    """
    saved = {item["saved"]: item["step"] for item in said if isinstance(item, dict) and "saved" in item}
    steps = {step for step in there.values() if step is not None}
    if scenario == "top-k":
        kept = sorted({*saved.values(), *steps})[-KEPT:]
        lost = not set(kept) <= steps
    else:
        lost = any((there.get(path) or 0) < step for path, step in saved.items())
    partial = any(step is None for step in there.values())
    return Counter({"points": 1, "lost": int(lost), "partial": int(partial)})
