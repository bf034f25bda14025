"""Progress bars on a terminal: rich's where it is installed, a line of percents elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from holdfast.front.sizes import amount

_EVERY = 0.1  # seconds between two looks of the plain line


@contextmanager
def bar(total: int, what: str, stream: TextIO) -> Iterator[Callable[[int], None]]:
    """Show a bar until the end of the block; yields what to call with each amount of bytes done, from any thread."""
    made = _rich_bar(total, what, stream)
    if made is None:
        line = _Line(total, what, stream)
        try:
            yield line.advance
        finally:
            line.close()
        return
    shown, task = made
    with shown:
        yield lambda done: shown.advance(task, done)


def _rich_bar(total: int, what: str, stream: TextIO) -> tuple[Any, Any] | None:
    """Return rich's progress and its task; None if it is not installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
    except ImportError:
        return None
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=Console(file=stream), transient=True)
    return shown, shown.add_task(what, total=total or None)


class _Line:
    """One line that is written over again and again."""

    def __init__(self, total: int, what: str, stream: TextIO) -> None:
        self._total, self._what, self._stream = total, what, stream
        self._done, self._shown = 0, 0.0
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, done: int) -> None:
        """Count; show now and then."""
        with self._lock:
            self._done += done
            now = time.monotonic()
            if now - self._shown < _EVERY:
                return
            self._shown = now
            of = f"{100 * self._done // self._total:3d} % of {amount(self._total)}" if self._total else ""
            rate = amount(int(self._done / max(now - self._begun, _EVERY)))
            self._stream.write(f"\r{self._what}  {of or amount(self._done)}  {rate}/s \x1b[K")
            self._stream.flush()

    def close(self) -> None:
        """Take the line away."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()
