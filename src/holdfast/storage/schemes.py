"""Stores of others: a URL scheme may belong to a class of your own, which keeps the contract of ``Store``."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points

from holdfast.errors import ConfigurationError
from holdfast.storage.contract import Store

Opener = Callable[[str], Store]

GROUP = "holdfast.stores"  # of entry points: a scheme's name, and what opens a URL of it
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_OURS = ("file", "local")

_openers: dict[str, Opener] = {}


def register_store(scheme: str, opener: Opener) -> None:
    """Open the URLs of a scheme with a store of your own, in this process, from now on.

    A package that is installed does the same in every process by an entry point in the group ``holdfast.stores``,
    whose name is the scheme. What is registered goes before it, and both go before fsspec.

    Args:
        scheme: such as ``"rows"`` for ``rows://...``.
        opener: called with the URL of a directory, without making anything; also for another process, such as a rank.
            An ``ImportError`` or ``ValueError`` of it is told as an error of the URL. What it returns is pickled with
            what it is part of.

    Raises:
        ConfigurationError: if that is no scheme of a URL, or one of this machine's files.

    """
    if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme) or scheme in _OURS:
        msg = f"`scheme` is what stands before :// in a URL, and not {' or '.join(_OURS)}, but got {scheme!r}"
        raise ConfigurationError(msg)
    _openers[scheme] = opener


def opener_of(url: str) -> Opener | None:
    """Return what opens a URL, if its scheme is somebody's own."""
    scheme = url.partition("://")[0]
    return _openers.get(scheme) or _installed(scheme)


@cache
def _installed(scheme: str) -> Opener | None:
    found = list(entry_points(group=GROUP, name=scheme))
    opener: Opener | None = found[0].load() if found else None
    return opener
