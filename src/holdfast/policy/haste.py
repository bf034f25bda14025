"""How early a save has to begin to be committed in time: from how long the earlier ones took."""

from __future__ import annotations

from collections.abc import Sequence

FACTOR = 2.0  # a save may take this many times as long as the slowest recent one
SPARE = 2.0  # seconds for what nobody has measured
SLOW = 100e6  # bytes/s that are assumed before the first save is measured


def expected(saves: Sequence[float], size: int = 0) -> float:
    """Return how long a save may take, in seconds: the slowest of the recent ones, with room.

    Args:
        saves: seconds from the order of a save to its commit, of the recent ones.
        size: bytes of the state; what counts until a save is measured, at 100 MB/s.

    """
    return FACTOR * max(saves) if saves else size / SLOW


def due(left: float, saves: Sequence[float], size: int, between: float) -> bool:
    """Tell whether a save has to begin now.

    Args:
        left: seconds until the deadline.
        saves: as of ``expected``.
        size: as of ``expected``.
        between: seconds of training until this is asked again.

    """
    return left <= expected(saves, size) + between + SPARE


def room(grace: float, saves: Sequence[float], size: int) -> float:
    """Return the seconds after a signal that training may go on before its save begins; at least 0."""
    return max(0.0, (grace - expected(saves, size)) / 2)


def left_for_uploads(grace: float, saves: Sequence[float]) -> float:
    """Return the seconds after the save at a signal that its upload has before the end; at least 0."""
    return max(0.0, grace - expected(saves) - SPARE)


def too_short(grace: float, saves: Sequence[float]) -> bool:
    """Tell whether a save takes longer than the seconds that are left after a signal."""
    return bool(saves) and max(saves) > grace
