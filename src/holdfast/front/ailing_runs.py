"""What does not agree among the checkpoints of a directory: their times, their names, their ranking, their runs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from holdfast.front.catalog import Catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.front.finding import NOTE, WARNING, Finding
from holdfast.records import IMPORTED, LAST, RANKED

_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf|-inf)"
_AHEAD = timedelta(minutes=5)  # by which two machines' clocks may well differ
_ROUNDING = 0.5000001  # of the last digit that a name shows


def runs(catalog: Catalog, now: datetime) -> Iterator[Finding]:
    """Yield what is to be said of the runs."""
    groups: dict[tuple[str, str], list[Checkpoint]] = defaultdict(list)
    for checkpoint in catalog:
        if checkpoint.facts is not None:
            groups[checkpoint.folder, checkpoint.run].append(checkpoint)
    for members in groups.values():
        members.sort(key=lambda member: (member.sequence, member.name))
        yield from _clock(members, now)
        yield from _twice(members)
        for member in members:
            yield from _name(member)
        yield from _ranking(members)
    yield from _mixed(catalog, groups)
    yield from _dropped(catalog, now)


def _clock(members: Sequence[Checkpoint], now: datetime) -> Iterator[Finding]:
    """Yield where time ran backwards while saves went on, and what was saved in the future."""
    cure = "nothing depends on it: saves are ordered by their sequence; set the machine's clock (NTP)"
    latest: Checkpoint | None = None
    for member in members:
        if member.time is None:
            continue
        if latest is not None and latest.time is not None and member.sequence > latest.sequence:
            back = latest.time - member.time
            if back > timedelta(0) and member.run != IMPORTED:  # what is imported comes from many runs
                what = f"saved after {latest.name}, and its time is {_span(back)} earlier: the clock was set back"
                yield Finding(WARNING, what, member.path, cure, "clock")
        if member.time - now > _AHEAD:
            what = f"its time lies {_span(member.time - now)} in the future"
            yield Finding(WARNING, what, member.path, cure, "clock")
        elif latest is None or latest.time is None or member.time > latest.time:
            latest = member


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds:.0f} s" if seconds < 600 else str(timedelta(seconds=round(seconds)))  # noqa: PLR2004 - ten minutes


def _twice(members: Sequence[Checkpoint]) -> Iterator[Finding]:
    """Yield the copies of one save that do not share its bytes."""
    seen: dict[tuple[str, int, str | None], Checkpoint] = {}
    for member in sorted(members, key=lambda member: member.role is None):  # its own name before any other
        if not member.run or member.run == IMPORTED or member.role not in (RANKED, None):
            continue
        first = seen.setdefault((member.owner, member.sequence, member.facts.time if member.facts else None), member)
        if first is not member and (not member.file_id or member.file_id != first.file_id):
            cure = "remove one of the two, if nobody needs both"
            yield Finding(NOTE, f"a copy of {first.name}, with bytes of its own", member.path, cure, "copy")


def _name(member: Checkpoint) -> Iterator[Finding]:
    """Yield where a name does not say what its manifest says."""
    if member.role is None:
        cure = "nothing: retention never removes it. To have it counted again give it back its name: "
        cure += " or ".join(sorted(member.facts.names.values())) if member.facts is not None else ""
        yield Finding(NOTE, "renamed or copied by hand", member.path, cure, "renamed")
    known = {"step": float(member.step), "epoch": float(member.epoch), **_saved_metrics(member)}
    base = member.name.rpartition("/")[2]
    for key, value in known.items():
        for shown in re.findall(rf"(?<![\w]){re.escape(key)}={_NUMBER}", base):
            if not _says(shown, value):
                what = f"its name says {key}={shown}, and its manifest {key}={value:g}"
                cure = "the manifest counts; rename the file if the name misleads"
                yield Finding(WARNING, what, member.path, cure, "name")


def _saved_metrics(member: Checkpoint) -> dict[str, float]:
    return dict(member.facts.metrics) if member.facts is not None else {}


def _says(shown: str, value: float) -> bool:
    """Tell whether a number in a name is a value as it would be rounded there."""
    said = float(shown)
    if math.isnan(said) or math.isnan(value) or math.isinf(said) or math.isinf(value):
        return (math.isnan(said) and math.isnan(value)) or said == value
    mantissa, _, exponent = shown.lower().partition("e")
    digits = len(mantissa.partition(".")[2].rstrip())
    return abs(said - value) <= _ROUNDING * 10.0 ** (-digits + int(exponent or 0))


def _ranking(members: Sequence[Checkpoint]) -> Iterator[Finding]:
    """Yield the ranked ones that have no score to rank by, or none that is a number."""
    ranked = [member for member in members if member.role == RANKED and member.monitor is not None]
    for member in ranked:
        value = member.metrics.get(member.monitor or "")
        by_rules = member.facts is not None and "keep" in member.facts.policy  # they keep some for other reasons
        if value is None and not by_rules:
            cure = f"add it: `holdfast metric FILE {member.monitor}=VALUE`"
            yield Finding(WARNING, f"ranked by {member.monitor}, which it does not have", member.path, cure, "score")
        elif value is not None and math.isnan(value):
            cure = "look at the training: NaN is the worst score, and never the best"
            yield Finding(NOTE, f"its {member.monitor} is NaN", member.path, cure, "score")
    ways = {(member.monitor, member.mode, member.owner) for member in ranked}
    owners = {owner for _, _, owner in ways}
    for owner in owners if len(ways) > len(owners) else ():
        own = sorted(f"{monitor} ({mode})" for monitor, mode, by in ways if by == owner)
        if len(own) > 1:
            what = f"one run ranks its checkpoints in several ways: {', '.join(own)}"
            cure = "the newest one's way counts; give each way a directory of its own"
            yield Finding(WARNING, what, ranked[-1].path, cure, "ranking")


def _mixed(catalog: Catalog, groups: dict[tuple[str, str], list[Checkpoint]]) -> Iterator[Finding]:
    """Yield the folders that hold several runs."""
    folders: dict[str, set[str]] = defaultdict(set)
    for (folder, run), members in groups.items():
        if run and run != IMPORTED and any(member.role in (RANKED, LAST) for member in members):
            folders[folder].add(run)
    for folder, found in folders.items():
        if len(found) > 1:
            what = f"{len(found)} runs in one directory: {', '.join(sorted(found))}"
            cure = "each keeps its own, but a resume takes the newest of all: give each run a directory of its own"
            path = f"{catalog.path.rstrip('/')}/{folder}".rstrip("/")
            yield Finding(WARNING, what, path, cure, "runs")


def _dropped(catalog: Catalog, now: datetime) -> Iterator[Finding]:
    """Yield what is there though its run's own rules do not keep it."""
    for checkpoint, decision in zip(catalog, catalog.plan(now=now), strict=True):
        if not decision.keep:
            what = f"there, though its run's rules do not keep it: {decision.reason}"
            cure = "its run removes it when it goes on, unless it was killed in between; or `holdfast prune`"
            yield Finding(WARNING, what, checkpoint.path, cure, "not-kept")
