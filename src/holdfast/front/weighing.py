"""How much is to be read, for those that show how far it has come. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from holdfast.storage import open_store, split_path


def size_of(paths: Iterable[str]) -> int:
    """Return the bytes of checkpoint files in all; of one that cannot be asked, none: whoever reads it says why."""
    total = 0
    for path in paths:
        root, name = split_path(path)
        with contextlib.suppress(OSError):
            total += open_store(root).size(name)
    return total
