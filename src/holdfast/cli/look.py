"""What a directory holds, with the reason why each checkpoint is kept. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import Any

from holdfast.front.catalogue import Found, is_directory, newest_first, read_manifest_at, scan_aside_path, scan_path
from holdfast.front.words import Decision, Entry, plan
from holdfast.records import EXCEPTION, LAST, PREEMPTED, RANKED, Facts, Manifest

_DEPTH = 100  # folders below the given directory: any number that people nest runs in


@dataclass(frozen=True)
class Look:
    """One checkpoint file, and why it is there."""

    name: str
    path: str
    size: int
    facts: Facts | None
    problem: str
    kept: str = ""
    damaged: bool = False

    @property
    def monitor(self) -> str | None:
        """The metric it was ranked by."""
        return self.facts.policy.get("monitor") if self.facts is not None else None

    @property
    def score(self) -> float | None:
        """Its value."""
        if self.facts is None or self.monitor is None:
            return None
        return self.facts.metrics.get(self.monitor)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the keys are stable."""
        facts = asdict(self.facts) if self.facts is not None else None
        return {
            "name": self.name,
            "path": self.path,
            "size": self.size,
            "kept": self.kept,
            "problem": self.problem,
            "facts": facts,
        }


def look_at(path: str) -> list[Look]:
    """Return the checkpoints below a directory, newest first, then those without a manifest.

    Raises:
        CheckpointNotFoundError: if there is no such directory.

    """
    found = scan_path(path, depth=_DEPTH)
    known = newest_first(found)
    others = [item for item in found if item.facts is None]
    looks = [
        Look(item.name, item.path, item.size, item.facts, item.problem, damaged=item.damaged)
        for item in (*known, *others)
    ]
    reasons = _reasons(known)
    return [replace(look, kept=reasons.get(look.name, "")) for look in looks]


def files_at(path: str) -> list[str]:
    """Return the paths of the checkpoints of a directory; of a file, its own."""
    return [look.path for look in look_at(path)] if is_directory(path) else [path]


def look_aside(path: str) -> list[str]:
    """Return the paths of the damaged checkpoints below a directory that were set aside."""
    return scan_aside_path(path, depth=_DEPTH)


def look_at_file(path: str) -> Manifest | None:
    """Return the manifest of one file.

    Raises:
        CheckpointNotFoundError: if there is no such file.
        DamagedCheckpointError: if its manifest cannot be read.

    """
    manifest: Manifest | None = read_manifest_at(path)
    return manifest


def _reasons(found: list[Found]) -> dict[str, str]:
    """Ask the policy of each run why it keeps what it keeps."""
    reasons: dict[str, str] = {}
    ranked: dict[tuple[str, str, str], list[Found]] = defaultdict(list)
    for item in found:
        if item.facts is None:
            continue
        role = _role(item)
        if role == RANKED:
            folder = item.name[: -len(item.facts.names[RANKED])]
            ranked[item.facts.run, item.facts.owner, folder].append(item)
        elif role == LAST:
            reasons[item.name] = "the last state"
        elif role == EXCEPTION:
            reasons[item.name] = "saved at an exception: never removed"
        elif role == PREEMPTED:
            reasons[item.name] = "saved at a signal: kept until the run commits a newer one"
        elif not item.facts.names:
            reasons[item.name] = "saved by hand: never removed"
        else:
            reasons[item.name] = "renamed or copied by hand: never removed"
    for group in ranked.values():
        reasons.update({decision.name: decision.reason for decision in _decide(group)})
    return reasons


def _role(item: Found) -> str | None:
    """What a file is to its run, also where the run's directory lies below the one that is listed."""
    names = item.facts.names if item.facts is not None else {}
    return next((role for role, name in names.items() if f"/{item.name}".endswith(f"/{name}")), None)


def _decide(group: list[Found]) -> list[Decision]:
    facts = [item.facts for item in group if item.facts is not None]
    policy = max(facts, key=lambda item: item.sequence).policy
    monitor = policy.get("monitor")
    entries = [
        Entry(
            item.name,
            known.metrics.get(monitor) if monitor is not None else None,
            known.step,
            known.epoch,
            known.sequence,
        )
        for item, known in zip(group, facts, strict=True)
    ]
    return plan(entries, monitor=monitor, mode=policy.get("mode", "min"), save_top_k=policy.get("save_top_k", -1))
