"""What is left on a filesystem of this machine."""

from __future__ import annotations

import os

from holdfast.storage.contract import Free


def free_in(folder: str) -> Free | None:
    """Ask the filesystem of a folder, or of the nearest one above it that is there; None where that cannot be asked."""
    if not hasattr(os, "statvfs"):
        return None
    folder = os.path.abspath(folder)
    while True:
        try:
            found = os.statvfs(folder)
        except (FileNotFoundError, NotADirectoryError):  # noqa: PERF203 - once or twice, where it begins
            folder = os.path.dirname(folder)
        else:
            return Free(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)
