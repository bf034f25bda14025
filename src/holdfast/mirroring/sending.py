"""One blob on its way from a store to another: in parts that a later try goes on with, checked, and then committed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from holdfast.mirroring.passing import Passing
from holdfast.mirroring.tickets import Tickets
from holdfast.storage import Store

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Way:
    """How bytes are sent.

    Attributes:
        target: where to.
        bandwidth: bytes per second; None for as fast as it goes.
        workers: parts that are under way at a time, and in memory.
        tickets: where unfinished uploads are noted; None for nowhere: they are aborted when they fail.
        progress: called with how many more bytes are there.
        stop: ends what is under way when it is set.

    """

    target: Store
    bandwidth: float | None = None
    workers: int = 4
    tickets: Tickets | None = None
    progress: Progress = lambda _: None
    stop: threading.Event | None = None


def send(way: Way, name: str, passing: Passing, *, kind: str = "", gate: Callable[[], None] = lambda: None) -> None:
    """Commit a blob at the target: whole, and as its check says, or not at all.

    Args:
        way: how.
        name: of the blob.
        passing: its bytes.
        kind: what identifies them; "" for what is not worth a ticket.
        gate: asked when all bytes are there and found right, before they are committed.

    Raises:
        DamagedCheckpointError: if the source is not as it was saved. What the target had is untouched.
        InterruptedError: if it was stopped.
        OSError: if the source cannot be read, or the target cannot be written.

    """
    del kind

    def check() -> None:
        passing.finish()
        gate()

    def flow() -> Iterator[memoryview]:
        for block in passing.blocks():
            if way.stop is not None and way.stop.is_set():
                raise InterruptedError("it was stopped")
            yield block
            way.progress(len(block))

    way.target.put(name, flow(), gate=check)
