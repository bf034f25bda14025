"""Names of files in bundles that no other save has had: how they are made, and told from those of others.

On a local filesystem a bundle is written in a folder of its own, and gets its name at the end. An object store renames
nothing: there the files of the next bundle stand beside those of the one that it is to replace. So the large ones have
a mark in their names that is drawn for each save, wherever it goes: a copy has the same names, at both ends.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

_MARK: Final = "holdfast-"
_LETTERS: Final = 12  # of hexadecimal digits: two saves under one name are not to draw the same
_MARKED = re.compile(rf"\.{_MARK}([0-9a-f]{{{_LETTERS}}})(?:\.[A-Za-z0-9]+)?$")


def draw() -> str:
    """Return a mark that no other save has."""
    return secrets.token_hex(_LETTERS // 2)


def marked(name: str, mark: str) -> str:
    """Return a file's name with a mark before its last ending: ``__0_0.holdfast-0123456789ab.distcp``."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{_MARK}{mark}.{ending}" if dot and stem else f"{name}.{_MARK}{mark}"


def mark_of(name: str) -> str:
    """Return the mark in a file's name; "" if it has none."""
    found = _MARKED.search(name)
    return "" if found is None else found[1]


def alias(name: str, seal: bytes) -> str:
    """Return the name under which a small file waits for its own, which an older bundle has until the seal is there.

    It is known to all who know the seal, and another for every other seal.
    """
    return f"{name}.{_MARK}{hashlib.sha256(seal).hexdigest()[:_LETTERS]}"


def without(name: str) -> str:
    """Return a file's name without its mark."""
    found = _MARKED.search(name)
    return name if found is None else name.replace(f".{_MARK}{found[1]}", "")
