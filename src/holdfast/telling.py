"""Warnings that name the user's own line, however deep in the library they arise."""

from __future__ import annotations

import sys
import warnings


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn, as of the innermost line that is not the library's own.

    Filters and the once-a-place rule of ``warnings`` go by that line. What a thread of ours has to say has no such
    line, and is told as of the thread's first.
    """
    level, frame = 1, sys._getframe()  # noqa: SLF001 - CPython's own way; inspect's reads every source on the way
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "holdfast":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
