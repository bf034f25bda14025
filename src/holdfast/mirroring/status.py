"""What a mirror is about, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """What a mirror has done and has yet to do.

    Attributes:
        queued: the checkpoints that wait for their turn, by name.
        under_way: the one that is being carried; "" if none is.
        sent: its bytes that the mirror has by now.
        size: its bytes.
        left: bytes that the mirror lacks, of the one under way and of those that wait.
        done: how many checkpoints have arrived since the start.
        bytes: how many bytes have arrived since the start.
        error: what is wrong with the mirror right now; "" if nothing is.
        failures: how many times in a row the mirror has failed.
        in_use: whether it has failed because another run has the mirror.

    """

    queued: tuple[str, ...] = ()
    under_way: str = ""
    sent: int = 0
    size: int = 0
    left: int = 0
    done: int = 0
    bytes: int = 0
    error: str = ""
    failures: int = 0
    in_use: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self.queued and not self.under_way
