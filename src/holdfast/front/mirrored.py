"""Which checkpoints of a directory have a copy on a mirror: as the directory knows, or as the mirror says. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast import notes
from holdfast.errors import CheckpointNotFoundError
from holdfast.front.catalog import catalog
from holdfast.front.checkpoint import Checkpoint
from holdfast.mirroring.known import Known, known_mirrors
from holdfast.storage import open_store, split_path, use_options

_DEPTH = 100  # folders below the given directory: any number that people nest runs in


@dataclass(frozen=True)
class Mirrored:
    """Where checkpoints have copies.

    Attributes:
        mirrors: the URLs of the mirrors that are known of, without secrets.
        asked: whether they were asked now; else it is what was there at the last upload.

    """

    mirrors: tuple[str, ...]
    _known: dict[str, list[Known]]
    asked: bool = False

    def of(self, item: Checkpoint) -> list[str]:
        """Return the URLs of the mirrors that have this very save under its name."""
        identity = "" if item.facts is None else notes.identity(item.facts)
        return [
            known.url
            for folder, mirrors in self._known.items()
            for known in mirrors
            if item.name.startswith(folder) and known.has(item.name[len(folder) :], identity)
        ]


def mirrored(path: str | os.PathLike[str], mirror: str | None = None) -> Mirrored:
    """Return which checkpoints of a directory have a copy on a mirror.

    Args:
        path: the directory.
        mirror: a directory or URL that is asked now; None for what the directory knows of its mirrors, without a
            request: what was there when something was brought or removed last.

    Raises:
        LoadError: if the mirror does not answer.

    """
    if mirror is None:
        found = known_mirrors(open_store(path), _DEPTH)
        return Mirrored(tuple(sorted({known.url for some in found.values() for known in some})), found)
    use_options(None, mirror)
    try:
        listed: Sequence[Checkpoint] = catalog(mirror)
    except CheckpointNotFoundError:  # nothing was ever brought there
        listed = ()
    there = {item.name: notes.identity(item.facts) for item in listed if item.facts is not None}
    return Mirrored((mirror,), {"": [Known(mirror, there)]}, asked=True)


def mirrors_of(item: Checkpoint) -> list[str]:
    """Return the mirrors that have one checkpoint, as the directory of its run knows."""
    root, name = split_path(item.path)
    facts = item.facts
    if facts is None:
        return []
    own = next((mine for mine in facts.names.values() if f"/{item.path}".endswith(f"/{mine}")), name)
    base = item.path[: -len(own) - 1] if len(own) > len(name) else root
    known = known_mirrors(open_store(base)).get("", []) if base else []
    return [one.url for one in known if one.has(own, notes.identity(facts))]
