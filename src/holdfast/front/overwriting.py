"""That nothing is written over what it is made of. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable

from holdfast.errors import ConfigurationError, printable
from holdfast.storage import is_local, split_path


def same_file(one: str, other: str) -> bool:
    """Tell whether two paths mean one file, by another of its names or a link to it, too."""
    if is_local(one) != is_local(other):
        return False
    if not is_local(one):
        return one == other
    paths = [os.path.join(*split_path(path)) for path in (one, other)]
    return all(map(os.path.exists, paths)) and os.path.samefile(*paths)


def refuse_own_source(goals: Iterable[str], sources: Iterable[str]) -> None:
    """See that none of the files to write is one of those to read.

    Raises:
        ConfigurationError: if one is, whether or not files may be written over.

    """
    known = tuple(sources)
    for goal in goals:
        if any(same_file(goal, source) for source in known):
            msg = f"{printable(goal)} is what is to be read, and is not written over: choose another name"
            raise ConfigurationError(msg)
