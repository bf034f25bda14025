"""How far a long transfer is, for whoever waits for it: a bar on a terminal, else a line in the log now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from holdfast.front.sizes import amount

log = logging.getLogger("holdfast")

_EVERY = 10.0  # seconds between two lines


@contextmanager
def shown(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a transfer until the end of the block; yields what to call with each amount of bytes done.

    Args:
        total: bytes to do; 0 if that is not known.
        what: what is being done, in a few words.

    """
    if sys.stderr is not None and sys.stderr.isatty():
        from holdfast.front.bars import bar  # noqa: PLC0415 - only for a terminal

        with bar(total, what, sys.stderr) as advance:
            yield advance
        return
    yield _Lines(total, what).advance


class _Lines:
    """Lines in the log, a few in a minute; none for what is over at once."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._done, self._told = 0, time.monotonic()

    def advance(self, done: int) -> None:
        """Count; tell now and then."""
        self._done += done
        now = time.monotonic()
        if now - self._told >= _EVERY:
            self._told = now
            log.info("%s: %s of %s", self._what, amount(self._done), amount(max(self._total, self._done)))
