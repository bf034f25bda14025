"""Paths and URLs as text: which are of this machine, and what they are without links and schemes."""

from __future__ import annotations

import errno
import os
import re

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]*)://")
_LOCAL_SCHEMES = ("file", "local")
_DOTS = {".", ".."}


def plain_path(path: str) -> str:
    """Return the path without a scheme that means this machine's filesystem."""
    match = _SCHEME.match(path)
    return path[match.end() :] if match and match.group(1) in _LOCAL_SCHEMES else path


def is_local(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is on this machine's filesystem rather than behind a URL."""
    return _SCHEME.match(plain_path(os.fspath(path))) is None and "::" not in os.fspath(path)


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a local path absolute, without links, ``~`` and scheme; a URL as it is."""
    text = os.fspath(path)
    if not text or not is_local(text):
        return text
    return os.path.realpath(os.path.expanduser(plain_path(text)))


def has_dots(name: str) -> bool:
    """Tell whether one of a name's parts is ``.`` or ``..``, so that a system would take it for another name."""
    return not _DOTS.isdisjoint(name.split("/"))


def no_dots(name: str) -> str:
    """Return a name that is below its root, whatever becomes of it.

    Raises:
        OSError: if it has dots for a part.

    """
    if has_dots(name):
        raise OSError(errno.EINVAL, "a name of a blob has no part that is . or ..", name)
    return name
