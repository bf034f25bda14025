"""Where a checkpoint comes from: the versions and the git commit of the code that made it."""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import lru_cache
from pathlib import Path

from holdfast._version import __version__

_FRAMEWORKS = ("torch", "lightning", "pytorch_lightning")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def versions() -> dict[str, str]:
    """Return the versions of holdfast, Python and the frameworks that are loaded."""
    found = {"holdfast": __version__, "python": platform.python_version()}
    for name in _FRAMEWORKS:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


@lru_cache(maxsize=8)
def git_commit(folder: str | None = None) -> str | None:
    """Return the commit checked out at a folder (default: the current one), read from ``.git``."""
    start = Path(folder or os.getcwd()).resolve()
    for place in (start, *start.parents):
        git = place / ".git"
        try:
            if git.is_file():  # a worktree or submodule
                git = (place / git.read_text().partition(":")[2].strip()).resolve()
            if git.is_dir():
                return _commit_of(git)
        except (OSError, UnicodeDecodeError):
            return None
    return None


def _commit_of(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head if _COMMIT.fullmatch(head) else None
    common = git / "commondir"
    main = (git / common.read_text().strip()).resolve() if common.is_file() else git
    reference = head.removeprefix("ref: ")
    for place in (git / reference, main / reference):
        if place.is_file():
            return place.read_text().strip()
    packed = main / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(" " + reference)), None)
