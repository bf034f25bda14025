"""What a user says of the second tier, checked."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta
from numbers import Real
from typing import Any

from holdfast.errors import ConfigurationError
from holdfast.front.sizes import parse_size
from holdfast.policy.keeping import rules_of
from holdfast.policy.terms import Term
from holdfast.storage import is_local, open_store, same_place


@dataclass(frozen=True)
class MirrorWords:
    """Where the second tier is, and how it is used.

    Attributes:
        url: its directory or URL.
        keep: the rules of what it keeps; None for those that the run keeps by here.
        bandwidth: bytes per second; None for as fast as it goes.
        wait: how many seconds the end of the training waits for the uploads; None as long as they go on.

    """

    url: str
    keep: tuple[Term, ...] | None = None
    bandwidth: float | None = None
    wait: float | None = None


def make_mirror_words(  # noqa: PLR0913 - each is one of the user's words
    dirpath: str | None,
    mirror: object,
    *,
    keep: object = None,
    bandwidth: object = None,
    wait: object = True,
    recycles: bool = False,
) -> MirrorWords | None:
    """Check the words; None without a mirror.

    Args:
        dirpath: the directory of the run; None if it is not known yet.
        mirror: a directory or URL, or None.
        keep: rules of retention there, or None.
        bandwidth: bytes per second, as a number or as text such as ``"50MB/s"``, or None.
        wait: True, False, seconds or a ``timedelta``.
        recycles: whether dropped files are written over.

    Raises:
        ConfigurationError: for a word that cannot be meant, naming it.

    """
    if mirror is None:
        given = {"mirror_keep": keep, "mirror_bandwidth": bandwidth}
        stray = next((word for word, value in given.items() if value is not None), "")
        if stray:
            msg = f"`{stray}` is about a mirror, and there is none: say where it is with `mirror`"
            raise ConfigurationError(msg)
        return None
    if not isinstance(mirror, (str, os.PathLike)):
        msg = f"`mirror` is a path, a URL or None, but got {mirror!r}"
        raise ConfigurationError(msg)
    url = os.fspath(mirror)
    url = os.path.abspath(os.path.expanduser(url)) if is_local(url) else url.rstrip("/")
    if recycles:
        msg = "`recycle_blocks` writes over files that the mirror may still be reading: leave out one of the two"
        raise ConfigurationError(msg)
    open_store(url)  # what is missing for it is told now, not after hours
    check_apart(dirpath, url)
    rules = None if keep is None else rules_of(keep)
    return MirrorWords(url, rules, _bandwidth(bandwidth), _seconds(wait))


def check_apart(dirpath: str | None, url: str) -> None:
    """See that the directory of a run and its mirror are two places, and that the first is of this machine.

    Raises:
        ConfigurationError: if not.

    """
    if dirpath is None:
        return
    if not is_local(dirpath):
        msg = (
            f"`mirror`={url!r} goes with a directory of this machine, but the run saves to {dirpath!r}: give a local "
            "`dirpath`, from which the mirror is filled behind the training; or leave out `mirror`"
        )
        raise ConfigurationError(msg)
    if same_place(dirpath, url):
        msg = f"`mirror` is the directory of the run itself, {dirpath!r}: give another place"
        raise ConfigurationError(msg)


def _bandwidth(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        return float(parse_size(value.strip().removesuffix("/s"), "mirror_bandwidth"))
    if isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf:
        return float(value)
    msg = f"`mirror_bandwidth` is a number of bytes per second above 0, such as 50e6 or '50MB/s', but got {value!r}"
    raise ConfigurationError(msg)


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool):
        return None if value else 0.0
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, Real) and 0 <= float(seconds) < math.inf:
        return float(seconds)
    msg = f"`mirror_wait` is True, False, or the seconds to wait at most, but got {value!r}"
    raise ConfigurationError(msg)
